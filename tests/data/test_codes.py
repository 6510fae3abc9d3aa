"""Packed codes: whose folder they are written to, what goes on and what begins anew, and damage."""

import json

import numpy as np
import pytest
import torch

from conftest import TINY_DVAE
from small_data import folder, png
from tessera.config import DataConfig
from tessera.data import codes, packing
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


@pytest.mark.parametrize("write", [encode, lambda pairs, out: packing.pack(pairs, out, 10)], ids=["encode", "pack"])
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


class Wide:
    """A tokenizer whose codes need more than 16 bits: two places that count up from picture to picture."""

    vocab, grid, pixels, channels = 262_144, 1, 16, 3

    def fingerprint(self) -> str:
        return "wide"

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(pixels))[:, None] + 262_140


def packed(tmp_path, pictures: int, per_part: int = codes.PART):
    more = {f"p{i}__png": png() for i in range(pictures - 1)} | {f"p{i}__txt": "another" for i in range(pictures - 1)}
    pairs = find(str(folder(tmp_path / "data", **more))).pairs
    assert len(pairs) == pictures
    codes.encode(pairs, Wide(), tmp_path / "out", 1, DataConfig(path="x"), 0, per_part=per_part)
    return pairs, Codes(tmp_path / "out")


def test_codes_above_65535_are_packed_whole(tmp_path):
    _, found = packed(tmp_path, 3)
    assert found.parts[0].dtype == np.uint32
    assert [found.views(i).item() for i in range(3)] == [262_140, 262_141, 262_142]
    some = found.some(np.array([2, 0]), np.zeros(2, dtype=np.uint64))
    assert some.astype(np.int64).tolist() == [[262_142], [262_140]]


@pytest.mark.parametrize(
    ("vocab", "kind"), [(2, "uint16"), (65_536, "uint16"), (65_537, "uint32"), (262_144, "uint32")]
)
def test_codes_take_no_more_bytes_than_they_need(vocab, kind):
    assert codes.packed_type(vocab) == np.dtype(kind)


def test_parts_of_two_types_are_not_one_folder(tmp_path):
    packed(tmp_path, 3, per_part=2)
    part = tmp_path / "out" / "part-00001.npy"
    np.save(part, np.load(part).astype(np.uint16))
    with pytest.raises(DataError, match="numbers of another type"):
        Codes(tmp_path / "out")
