"""Packed codes: whose folder they are written to, what goes on and what begins anew, and damage."""

import json

import numpy as np
import pytest
import torch

from conftest import TINY_DVAE
from small_data import folder
from tessera.config import DataConfig
from tessera.data import codes, shards
from tessera.data.codes import Codes
from tessera.data.find import find
from tessera.data.pictures import read
from tessera.errors import ConfigError, DataError
from tessera.models.dvae import DiscreteVAE
from tessera.tokens.image import Frozen


def tree(root):
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in root.rglob("*")}


def encode(pairs, out, **more):
    torch.manual_seed(0)
    return codes.encode(pairs, Frozen(DiscreteVAE(TINY_DVAE).eval()), out, 1, DataConfig(path="x", **more), 0)


@pytest.mark.parametrize("write", [encode, lambda pairs, out: shards.pack(pairs, out, 10)], ids=["encode", "pack"])
def test_a_folder_of_somebody_elses_files_is_refused_and_left_alone(write, tmp_path):
    data = folder(tmp_path / "data")
    pairs = find(str(data)).pairs
    thesis = tmp_path / "mine"
    (thesis / "deep").mkdir(parents=True)
    (thesis / "thesis.tex").write_text("years of work")
    (thesis / ".bashrc").write_text("alias")
    for out in (thesis, data):
        before = tree(out)
        with pytest.raises(ConfigError, match="Tessera did not begin it"):
            write(pairs, out)
        assert tree(out) == before


def test_encoding_goes_on_begins_anew_and_touches_only_its_own_names(tmp_path):
    pairs = find(str(folder(tmp_path / "data"))).pairs
    out = tmp_path / "codes"
    encode(pairs, out)
    (out / "notes.txt").write_text("mine")
    (out / ".hidden").write_text("mine")
    first = (out / "part-00000.npy").stat().st_mtime_ns
    encode(pairs, out)
    assert (out / "part-00000.npy").stat().st_mtime_ns == first
    encode(pairs, out, crop=0.5)
    assert (out / "part-00000.npy").stat().st_mtime_ns != first
    assert (out / "notes.txt").read_text() == (out / ".hidden").read_text() == "mine"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("index.json", "[]"), ("index.json", "{"), ("part-00000.npy", b"\x93NUMPY"), ("part-00000.npy", b""),
        ("index.json", {"parts": ["../../etc/passwd"]}), ("index.json", {"views": 7}), ("index.json", {"pairs": []}),
    ],
)  # fmt: skip
def test_damaged_codes_are_one_sentence(file, content, tmp_path):
    out = tmp_path / "codes"
    encode(find(str(folder(tmp_path / "data"))).pairs, out)
    if isinstance(content, dict):
        content = json.dumps({**json.loads((out / file).read_text()), **content})
    (out / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match="holds no finished packed codes"):
        codes.Codes(out)


def test_packed_codes_lead_to_no_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "part-00000.npy", np.zeros((1, 1, 4), dtype=np.uint16))
    for place in ("pipe:touch ran", "pipe:touch ran.tar:0+10", "gs://a/$(touch ran)"):
        about = {"tokenizer": "", "views": 1, "seed": 0, "data": {"path": place}, "keys": "",
                 "parts": ["part-00000.npy"], "pairs": [{"key": "a", "image": place, "captions": ["a"]}]}  # fmt: skip
        (tmp_path / "index.json").write_text(json.dumps(about))
        (pair,) = Codes(tmp_path).pairs
        with pytest.raises(DataError, match="cannot be used"):
            read(pair.image)
    assert not (tmp_path / "ran").exists()
