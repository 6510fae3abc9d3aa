"""Captioned folders in every layout, nasty inputs, order, packed codes."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import TINY_DVAE
from tessera.cli import main
from tessera.cli.data import data
from tessera.config import DataConfig
from tessera.data.batches import (
    Captions,
    NoCaptions,
    Packed,
    Pictures,
    Place,
    Plan,
    order,
    places,
    scrambled,
    stream,
)
from tessera.data.check import check, show
from tessera.data.codes import PART, Codes, encode
from tessera.data.folder import scan
from tessera.data.pictures import read, resized
from tessera.data.sources import Pair
from tessera.data.split import split
from tessera.errors import ConfigError, DataError
from tessera.models.dvae import DiscreteVAE
from tessera.tokens.image import Frozen
from tessera.tokens.text import train_bpe


def picture(path: Path, size=(40, 30), colour=(200, 60, 40), **save) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(abs(hash(path.name)) % 2**32).integers(-20, 20, (size[1], size[0], 3))
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path, **save)
    return path


def pair(path: Path, caption: str = "a red square\n") -> None:
    picture(path)
    path.with_suffix(".txt").write_text(caption, "utf-8")


# Layouts.


def test_same_name_text(tmp_path):
    pair(tmp_path / "a.jpg", "one\n\n  two  words \r\n")
    pair(tmp_path / "CAPS.JPG")
    pair(tmp_path / "dogs/1.png", "a dog")
    pair(tmp_path / "cats/1.png", "a cat")
    found = scan(str(tmp_path))
    assert {p.key: p.captions for p in found.pairs} == {
        "CAPS.JPG": ("a red square",),
        "a.jpg": ("one", "two words"),
        "cats/1.png": ("a cat",),
        "dogs/1.png": ("a dog",),
    }


def cub(root: Path) -> None:
    for kind in ("001.Wren", "002.Jay"):
        for n in range(2):
            picture(root / f"CUB/images/{kind}/{kind[4:]}_{n}.jpg")
            text = root / f"text_c10/{kind}/{kind[4:]}_{n}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(f"a {kind[4:]}\nnumber {n}\n")
    (root / "CUB/images.txt").write_text("1 001.Wren/Wren_0.jpg\n")


def test_two_trees_below_one_folder_and_apart(tmp_path):
    cub(tmp_path)
    together = scan(str(tmp_path))
    apart = scan(str(tmp_path / "CUB/images"), str(tmp_path / "text_c10"))
    assert together.layout == apart.layout == "two trees"
    assert [p.captions for p in together.pairs] == [p.captions for p in apart.pairs]
    assert len(apart.pairs) == 4
    assert apart.pairs[0].key == "001.Wren/Wren_0.jpg"
    assert apart.pairs[0].captions == ("a Wren", "number 0")


def test_equal_stems_in_a_second_tree_go_by_folder(tmp_path):
    for kind in ("cats", "dogs"):
        picture(tmp_path / f"images/{kind}/1.png")
        text = tmp_path / f"texts/{kind}/1.txt"
        text.parent.mkdir(parents=True)
        text.write_text(f"one of the {kind}")
    found = scan(str(tmp_path / "images"), str(tmp_path / "texts"))
    assert [p.captions[0] for p in found.pairs] == ["one of the cats", "one of the dogs"]


def test_an_ambiguous_stem_is_left_out_and_named(tmp_path):
    picture(tmp_path / "images/1.png")
    for kind in ("x", "y"):
        (tmp_path / f"texts/{kind}").mkdir(parents=True)
        (tmp_path / f"texts/{kind}/1.txt").write_text("which?")
    pair(tmp_path / "images/2.png")
    found = scan(str(tmp_path / "images"), str(tmp_path / "texts"))
    assert "2 text files" in found.skipped[0].reason


def test_a_neighbours_text_is_not_taken(tmp_path):
    pair(tmp_path / "cats/001.jpg", "a cat")
    picture(tmp_path / "dogs/001.jpg")
    found = scan(str(tmp_path))
    assert [p.key for p in found.pairs] == ["cats/001.jpg"]
    assert found.skipped[0].path == "dogs/001.jpg"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_tables(tmp_path, kind):
    picture(tmp_path / "a.png")
    picture(tmp_path / "sub/b.png")
    picture(tmp_path / "unlisted.png")
    rows = [("a.png", 'a "quoted", square'), ("sub/b.png", "b"), ("gone.png", "c"), ("../out.png", "d")]
    if kind == "csv":
        lines = ['a.png,"a ""quoted"", square"'] + [f"{n},{t}" for n, t in rows[1:]]
        (tmp_path / "metadata.csv").write_text("file_name,text\n" + "\n".join(lines))
    elif kind == "jsonl":
        (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps({"file_name": n, "text": t}) for n, t in rows))
    else:
        import pyarrow
        import pyarrow.parquet

        names, texts = zip(*rows, strict=True)
        pyarrow.parquet.write_table(pyarrow.table({"file_name": names, "text": texts}), tmp_path / "metadata.parquet")
    found = scan(str(tmp_path))
    assert {p.key: p.captions for p in found.pairs} == {"a.png": ('a "quoted", square',), "sub/b.png": ("b",)}
    reasons = {s.path: s.reason for s in found.skipped}
    assert "not there" in reasons["gone.png"]
    assert "leads out" in reasons["../out.png"]
    assert "does not list" in reasons["unlisted.png"]


def test_coco_captions(tmp_path):
    picture(tmp_path / "images/1.jpg")
    picture(tmp_path / "images/2.jpg")
    (tmp_path / "annotations").mkdir()
    notes = [{"image_id": 7, "caption": "first"}, {"image_id": 7, "caption": "second"}]
    names = [{"id": 7, "file_name": "1.jpg"}, {"id": 8, "file_name": "2.jpg"}]
    file = tmp_path / "annotations/captions.json"
    file.write_text(json.dumps({"images": names, "annotations": notes}))
    for found in (scan(str(tmp_path)), scan(str(tmp_path / "images"), str(file))):
        assert [p.captions for p in found.pairs] == [("first", "second")]
        assert found.skipped[0].reason == "the caption is empty"


def test_captions_that_are_no_table_are_a_sentence(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(DataError, match=r"list\.json is not a COCO captions file: it does not hold an object"):
        scan(str(tmp_path), str(tmp_path / "list.json"))


def test_a_folder_without_pairs_or_without_itself(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        scan(str(tmp_path / "nowhere"))
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match="no captioned picture"):
        scan(str(tmp_path))


# Nasty inputs.


def nasty(root: Path) -> None:
    for i in range(3):
        pair(root / f"ok_{i}.jpg")
    Image.new("CMYK", (20, 30), (10, 200, 30, 0)).save(root / "cmyk.jpg")
    Image.fromarray((np.linspace(0, 65535, 600).reshape(20, 30)).astype(np.uint16)).save(root / "grey16.png")
    Image.new("P", (20, 20)).save(root / "palette.gif")
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(root / "clear.png")
    exif = Image.Exif()
    exif[274] = 8
    picture(root / "exif.jpg", size=(40, 20), exif=exif)
    whole = picture(root / "whole.png").read_bytes()
    (root / "whole.png").unlink()
    (root / "cut.png").write_bytes(whole[: len(whole) * 7 // 10])
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(buffer, "JPEG")
    (root / "cut_jpeg.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) * 8 // 10])
    (root / "zero.png").write_bytes(b"")
    (root / "text_as_png.png").write_text("no picture at all")
    Image.new("1", (20000, 20000)).save(root / "bomb.png")
    (root / "dangling.jpg").symlink_to(root / "gone.jpg")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.png")
    for file in [f for f in root.iterdir() if f.suffix in (".jpg", ".png", ".gif")]:
        file.with_suffix(".txt").write_text("a thing\n")
    (root / "blank.txt").write_text(" \n\n")
    picture(root / "blank.jpg")
    picture(root / "alone.jpg")
    (root / "orphan.txt").write_text("nobody's\n")
    pair(root / "bom.jpg", "\ufeffa black jacket")
    picture(root / "latin1.jpg")
    (root / "latin1.txt").write_bytes("a café".encode("latin-1"))
    pair(root / "naïve name.jpg")
    bytes_name = os.fsdecode(b"not-utf8-\xff.jpg")
    pair(root / bytes_name)
    pair(root / "new\nline.jpg")


BAD = {"cut.png", "cut_jpeg.jpg", "zero.png", "text_as_png.png", "bomb.png", "dangling.jpg", "pipe.png", "blank.jpg", "alone.jpg", "orphan.txt"}  # fmt: skip


def test_nasty_inputs_are_left_out_with_a_reason_and_nothing_else_is(tmp_path):
    nasty(tmp_path)
    health = check(str(tmp_path))
    assert {s.path for s in health.skipped} == BAD
    assert all(s.reason for s in health.skipped)
    good = {c.pair.key: c for c in health.good}
    assert good["bom.jpg"].pair.captions == ("a black jacket",)
    assert good["latin1.jpg"].pair.captions == ("a café",)
    assert (good["exif.jpg"].width, good["exif.jpg"].height) == (20, 40)
    assert len(good) == 3 + 5 + 5
    report = json.loads(json.dumps(health.to_json()))
    assert len(report["pairs"]) == len(good)
    assert {s["path"] for s in report["skipped"]} == BAD
    assert any(p["image"] == "not-utf8-\\xff.jpg" for p in report["pairs"])


def test_the_doctor_remembers_what_did_not_change(tmp_path, monkeypatch):
    pair(tmp_path / "d/a.jpg")
    pair(tmp_path / "d/b.jpg")
    first = check(str(tmp_path / "d"), cache=tmp_path / "data.json")
    monkeypatch.setattr("tessera.data.check.decode", None)  # reading again would fail
    assert check(str(tmp_path / "d"), cache=tmp_path / "data.json") == first


def test_pictures_convert(tmp_path):
    nasty(tmp_path)
    assert read(tmp_path / "clear.png")[:, 0, 0].tolist() == [255, 255, 255]
    assert read(tmp_path / "clear.png", 4)[:, 0, 0].tolist() == [255, 0, 0, 0]
    grey = read(tmp_path / "grey16.png")
    assert grey[0, 0, 0] == 0
    assert grey[0, -1, -1] == 255
    assert read(tmp_path / "ok_0.jpg", 1).shape == (1, 30, 40)
    assert show("a\nb") == "a\\nb"


def test_data_check_prints_one_json_object(tmp_path, capsys):
    nasty(tmp_path)
    out = subprocess.run([sys.executable, "-m", "tessera", "data", "check", str(tmp_path), "--json"], capture_output=True, text=True, check=True)  # fmt: skip
    assert {s["path"] for s in json.loads(out.stdout)["skipped"]} == BAD
    main(["data", "check", str(tmp_path)])
    plain = capsys.readouterr().out
    assert all(name in plain for name in BAD)
    assert "10 left out" in plain


def test_duplicates_are_found(tmp_path):
    pair(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "b.txt").write_text("again")
    assert check(str(tmp_path)).duplicates() == [["a.png", "b.png"]]


def test_data_check_shows_some_of_many_equal_pictures(tmp_path, capsys):
    pair(tmp_path / "000.png")
    for i in range(1, 40):
        (tmp_path / f"{i:03d}.png").write_bytes((tmp_path / "000.png").read_bytes())
        (tmp_path / f"{i:03d}.txt").write_text("again")
    data(["check", str(tmp_path)])
    assert "  40 equal pictures: 000.png, 001.png, 002.png, 003.png, 004.png and 35 more\n" in capsys.readouterr().out
    data(["check", str(tmp_path), "--json"])
    assert [len(keys) for keys in json.loads(capsys.readouterr().out)["duplicates"]] == [40]
    for i in range(44):
        pixels = Image.new("RGB", (8, 8), (i // 2, 0, 0))
        pixels.save(tmp_path / f"pair{i}.png")
        (tmp_path / f"pair{i}.txt").write_text("two of each")
    data(["check", str(tmp_path)])
    said = capsys.readouterr().out
    assert said.count(" equal pictures: ") == 20
    assert "  and 3 more groups of equal pictures; --json names all of them.\n" in said


def test_resizing_is_pillows_bicubic(tmp_path):
    image = picture(tmp_path / "a.png", size=(90, 70))
    tensor = read(image)
    ours = resized(tensor, (5, 10, 60), 24).permute(1, 2, 0).numpy().astype(int)
    theirs = np.asarray(Image.open(image).crop((10, 5, 70, 65)).resize((24, 24), Image.Resampling.BICUBIC)).astype(int)
    assert abs(ours - theirs).max() <= 2
    assert abs(ours - theirs).mean() < 0.1


# Order.


def make_pairs(n: int) -> list[Pair]:
    return [Pair(f"{i:04d}.png", Path(f"{i:04d}.png"), (f"caption {i}",)) for i in range(n)]


def test_the_held_out_split_is_stable():
    few, many = make_pairs(200), make_pairs(1000)
    held = {p.key for p in split(many, 0.1)[1]}
    assert 60 < len(held) < 140
    assert {p.key for p in split(few, 0.1)[1]} == {k for k in held if k < "0200"}
    assert split(many, 0.0)[1] == []


def test_order_is_a_function_of_step_epoch_and_rank():
    assert sorted(order(50, 3, 0)) == list(range(50))
    assert list(order(50, 3, 0)) != list(order(50, 3, 1))
    whole = [p for s in range(10) for p in places(50, 10, 3, s)]
    assert sorted(p.index for p in whole[:50]) == list(range(50))
    assert {p.epoch for p in whole[50:]} == {1}
    ranks = [places(50, 10, 3, 4, rank, 2) for rank in range(2)]
    assert ranks[0] + ranks[1] == places(50, 10, 3, 4)
    late = iter(Plan(50, 12, 3, start=7))
    assert [next(late) for _ in range(5)] == [places(50, 12, 3, s) for s in range(7, 12)]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_resume_exactly_with_any_number_of_workers(bird_folder, workers):
    pairs = list(scan(str(bird_folder)).pairs)
    tokenizer = train_bpe([c for p in pairs for c in p.captions], 300)
    captions = Captions(pairs, tokenizer, 200, truncate=False)
    source = Pictures(pairs, DataConfig(flip=True, crop=0.5), 16, 3, 5, captions)
    through = stream(source, len(pairs), 6, 5, 0)
    expected = [next(through) for _ in range(9)]
    resumed = stream(source, len(pairs), 6, 5, 6, workers=workers)
    for wanted in expected[6:]:
        found = next(resumed)
        assert torch.equal(found.pixels, wanted.pixels)
        assert torch.equal(found.tokens, wanted.tokens)


def test_packed_choices_are_spread_evenly_and_the_same_in_any_batch():
    epochs, index = np.meshgrid(np.arange(40), np.arange(500))
    drawn = scrambled(7, epochs.ravel(), index.ravel())
    assert len(np.unique(drawn)) == drawn.size
    for views in (2, 3, 10):
        counts = np.bincount((drawn % np.uint64(views)).astype(int))
        assert abs(counts / drawn.size * views - 1).max() < 0.06
    assert np.array_equal(scrambled(7, epochs.ravel()[5:6], index.ravel()[5:6]), drawn[5:6])
    assert not np.array_equal(scrambled(8, epochs.ravel(), index.ravel()), drawn)


def test_packed_choices_are_two_rounds_of_splitmix64():
    def slow(seed: int, epoch: int, index: int) -> int:
        z = seed + epoch * 0x9E3779B97F4A7C15
        for part in (index, 1):
            z = (z + part) * 0xBF58476D1CE4E5B9 % 2**64
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
            z ^= z >> 31
        return z

    epoch, index = np.array([0, 1, 2, 2]), np.array([0, 5, 5, 10**9])
    wanted = [slow(7, int(e), int(i)) for e, i in zip(epoch, index, strict=True)]
    assert scrambled(7, epoch, index).tolist() == wanted


def test_too_long_captions_are_named_before_the_first_step():
    pairs = [Pair("fine.png", Path("fine.png"), ("a b",)), Pair("wordy.png", Path("wordy.png"), ("word " * 60,))]
    tokenizer = train_bpe(["a b"], 300)
    with pytest.raises(DataError, match=r"wordy\.png.*text-len 8"):
        Captions(pairs, tokenizer, 8, truncate=False)
    assert Captions(pairs, tokenizer, 8, truncate=True).rows(1).shape == (1, 8)


# Packed codes.


def test_looking_at_an_image_tokenizer_that_learns_changes_nothing():
    model = DiscreteVAE(TINY_DVAE)
    laid = {name: p.stride() for name, p in model.named_parameters()}
    Frozen(model).encode(torch.rand(1, 3, 16, 16))
    assert {name: p.stride() for name, p in model.named_parameters()} == laid


def test_packed_codes_are_what_encoding_gives_and_resume(bird_folder, tmp_path):
    torch.manual_seed(0)
    pairs = list(scan(str(bird_folder)).pairs)
    tokenizer = Frozen(DiscreteVAE(TINY_DVAE))
    config = DataConfig(flip=True)
    assert not encode(pairs, tokenizer, tmp_path, 4, config, 0, per_part=16)
    codes = Codes(tmp_path)
    assert len(codes) == 40
    assert codes.views(17).shape == (4, 16)
    source = Pictures(pairs, config, 16, 3, 0, NoCaptions())
    plain = tokenizer.encode(source.plain(17)[1][None].float() / 255)
    assert torch.equal(codes.views(17)[0], plain[0])
    kept = (tmp_path / "part-00000.npy").stat().st_mtime_ns
    before = [codes.views(i) for i in range(40)]
    (tmp_path / "part-00001.npy").unlink()
    (tmp_path / "index.json").unlink()
    with pytest.raises(DataError, match="no finished packed codes"):
        Codes(tmp_path)
    assert not encode(pairs, tokenizer, tmp_path, 4, config, 0, per_part=16)
    again = Codes(tmp_path)
    assert (tmp_path / "part-00000.npy").stat().st_mtime_ns == kept
    assert all(torch.equal(again.views(i), before[i]) for i in range(40))
    assert torch.equal(again.only(pairs[30:]).views(0), before[30])
    assert PART == 256


def test_one_packed_sample_is_that_of_its_batch(bird_folder, tmp_path, monkeypatch):
    pairs = list(scan(str(bird_folder)).pairs)[:6]
    encode(pairs, Frozen(DiscreteVAE(TINY_DVAE)), tmp_path, 2, DataConfig(flip=True), 0)
    codes = Codes(tmp_path)
    source = Packed(codes, Captions(pairs, train_bpe(["a b"], 300), 300, truncate=True), 0)
    wanted = [Place(4, 1), Place(0, 2)]
    for place, (tokens, found) in zip(wanted, source.__getitems__(wanted), strict=True):
        assert torch.equal(source[place][0], tokens)
        assert torch.equal(source[place][1], found)
    monkeypatch.setattr(codes, "views", lambda index: torch.arange(8).view(2, 4) + index)
    assert source.plain(4)[1].tolist() == [4, 5, 6, 7], "held-out losses are measured on the middle square"
