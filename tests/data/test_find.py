"""Whatever lies in a data set is used rightly or named with its reason, and writing beside it harms nothing."""

import io
import json
import os
import time

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import TINY_DVAE
from tessera.config import DataConfig
from tessera.data import codes, shards
from tessera.data.check import check
from tessera.data.find import find
from tessera.data.pictures import read
from tessera.data.sources import Pair
from tessera.data.split import split
from tessera.errors import ConfigError, DataError
from tessera.models.dvae import DiscreteVAE
from tessera.tokens.image import Frozen


def png(colour="red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), colour).save(buffer, "PNG")
    return buffer.getvalue()


def folder(root, **files):
    """A folder of one good pair and these files; __ in a name is a dot."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in {"good__png": png(), "good__txt": "a good one", **files}.items():
        path = root / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return root


def tree(root):
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in root.rglob("*")}


def reason_of(work, *errors):
    """What the expected error says, or None where there is none."""
    try:
        work()
    except errors as error:
        return str(error)


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


def test_shards_of_one_name_in_two_folders_keep_their_pictures_apart(tmp_path):
    for name, colour in (("a", "red"), ("b", "blue")):
        data = folder(tmp_path / f"data-{name}", **{"good__png": png(colour), "good__txt": name})
        shards.pack(find(str(data)).pairs, tmp_path / name, 10)
    found = find(f"{tmp_path}/{{a,b}}/shard-000000.tar").pairs
    assert [p.key for p in found] == ["a/shard-000000.tar/000000", "b/shard-000000.tar/000000"]
    assert find(f"{tmp_path}/a/shard-000000.tar").pairs[0].key == "shard-000000.tar/000000"
    assert [int(read(p.image)[0, 0, 0]) for p in found] == [255, 0]
    with pytest.raises(ConfigError, match="named twice"):
        find(f"{tmp_path}/{{a,a}}/shard-000000.tar")


def test_captions_in_other_encodings_are_read_and_what_is_not_text_is_left_out(tmp_path):
    data = folder(
        tmp_path, wide__png=png("blue"), wide__txt="ein Vogel, schön".encode("utf-16"),
        west__png=png("green"), west__txt="schön".encode("cp1252"), bad__png=png("white"), bad__txt=png(),
    )  # fmt: skip
    found = find(str(data))
    assert {p.key: p.captions[0] for p in found.pairs} == {
        "good.png": "a good one", "wide.png": "ein Vogel, schön", "west.png": "schön",
    }  # fmt: skip
    assert "not text" in next(s.reason for s in found.skipped if s.path == "bad.png")


def test_the_split_gives_each_pair_to_one_side():
    pairs = [Pair(f"{i}.png", None, ("x",)) for i in range(400)]
    learned, held = split(pairs, 0.25)
    assert not {p.key for p in learned} & {p.key for p in held}
    assert len(learned) + len(held) == 400
    assert 60 < len(held) < 140


def test_a_picture_in_a_format_that_starts_programs_is_not_opened(tmp_path):
    data = folder(tmp_path, eps__jpg=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", eps__txt="a drawing")
    health = check(str(data))
    assert [s.reason for s in health.skipped] == ["not a picture, whatever its name says"]


def test_any_damage_of_a_photograph_is_its_own_skip():
    from pathlib import Path
    from tempfile import TemporaryDirectory

    exif, buffer = Image.Exif(), io.BytesIO()
    exif[274], exif[270] = 6, "words" * 8
    Image.new("RGB", (24, 24), "red").save(buffer, "JPEG", exif=exif)
    noise = np.random.default_rng(0)
    with TemporaryDirectory() as place:
        path = Path(place) / "x.jpg"
        for _ in range(300):
            raw = bytearray(buffer.getvalue())
            for at in noise.integers(2, 140, 3):
                raw[at] = int(noise.integers(256))
            path.write_bytes(raw)
            assert reason_of(lambda: read(path), DataError) is None or "x.jpg" in reason_of(
                lambda: read(path), DataError
            )


def coco(caption, name='"good.png"') -> str:
    return f'{{"images": [{{"id": 1, "file_name": {name}}}], "annotations": [{{"image_id": 1, "caption": {caption}}}]}}'


@pytest.mark.parametrize(
    "files",
    [
        {"x__json": coco("null")}, {"x__json": coco("3")}, {"x__json": coco("[1]")}, {"x__json": coco('"a"', "7")},
        {"x__json": '{"images": ' + "[" * 100_000}, {"metadata__jsonl": "[" * 100_000}, {"metadata__parquet": b"PAR1"},
        {"metadata__csv": 'file_name,text\n"' + "a" * 300}, {"metadata__csv": "file_name,text\ngood.png," + "x" * 140_000},
        {"metadata__jsonl": '{"file_name": "\\ud800.png", "text": "x"}\n{"file_name": "good.png", "text": "y"}'},
        {"metadata__csv": "File_Name; Text \n\ngood.png;one\n./good.png;two\n;\n"},
    ],
    ids=lambda files: f"{next(iter(files))} {str(next(iter(files.values())))[-30:]}",
)  # fmt: skip
def test_a_strange_table_costs_its_own_rows_or_is_one_sentence(files, tmp_path):
    data, found = folder(tmp_path, **files), []
    reason = reason_of(lambda: found.append(find(str(data))), DataError, ConfigError)
    assert found or str(tmp_path) in (reason or "")
    for read_folder in found:
        assert {p.key for p in read_folder.pairs} <= {"good.png"}
        assert all(s.reason for s in read_folder.skipped)


def test_links_to_nowhere_and_to_themselves_and_pipes_hold_nobody_up(tmp_path):
    data = folder(tmp_path)
    (data / "x.json").symlink_to("nowhere")
    for name in ("loop.png", "loop"):
        (data / name).symlink_to(name)
    os.mkfifo(data / "y.json")
    os.mkfifo(data / "metadata.csv")
    os.mkfifo(data / "pipe.png")
    (data / "pipe.txt").write_text("waits for ever")
    began = time.monotonic()
    health = check(str(data))
    assert [p.key for p in health.pairs] == ["good.png"]
    assert time.monotonic() - began < 20


def test_coco_as_it_is_published_is_read(tmp_path):
    for name in ("annotations", "train2017"):
        (tmp_path / name).mkdir()
    (tmp_path / "train2017" / "1.png").write_bytes(png())
    (tmp_path / "annotations" / "captions_train2017.json").write_text(coco('"a dog"', '"1.png"'))
    boxes = '{"images": [{"id": 1, "file_name": "1.png"}], "annotations": [{"image_id": 1, "bbox": [1, 2]}]}'
    (tmp_path / "annotations" / "instances_train2017.json").write_text(boxes)
    assert [(p.key, p.captions) for p in find(str(tmp_path)).pairs] == [("train2017/1.png", ("a dog",))]


def test_two_trees_of_equal_names_are_matched_in_one_pass(tmp_path, monkeypatch):
    for i in range(60):
        for tree_name, name, content in (
            ("images", "image.png", png()),
            ("captions", "image.txt", f"number {i}".encode()),
        ):
            (tmp_path / tree_name / f"{i:03d}").mkdir(parents=True)
            (tmp_path / tree_name / f"{i:03d}" / name).write_bytes(content)
    found = find(str(tmp_path)).pairs
    assert [p.captions for p in found] == [(f"number {i}",) for i in range(60)]


@pytest.mark.parametrize(("side", "pixels"), [(16, 16), (32, 32), (63, 32), (64, 64), (128, 128), (500, 256)])
def test_pictures_are_learned_at_their_own_size(side, pixels, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side + 9)).save(buffer, "PNG")
    assert check(str(folder(tmp_path, good__png=buffer.getvalue()))).settings()["pixels"] == pixels
