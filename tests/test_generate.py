"""`tessera generate`: what can be refused is refused before weights are read; nothing of the user's is overwritten."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from conftest import MODERN, TINY_DVAE, prior
from tessera.cli import main
from tessera.generate import raster, sheet
from tessera.generate.judge import CLIPJudge
from tessera.generate.pipeline import Picture, Pipeline
from tessera.generate.sheet import contact_sheet, prompt_folder, wrap
from tessera.models import saved
from tessera.models.dvae import DiscreteVAE
from tessera.tokens.text import Numbers
from test_cli import fails


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose prompts are numbers."""
    folder = tmp_path_factory.mktemp("prior") / "run"
    checkpoint = folder / "step-000001"
    torch.manual_seed(0)
    saved.write(checkpoint, prior(MODERN, image_vocab=27))
    saved.write(checkpoint / "image_tokenizer", DiscreteVAE(TINY_DVAE))
    Numbers(20).save(checkpoint / "text_tokenizer")
    return folder


@pytest.fixture
def no_loading(monkeypatch):
    """Whatever loads a model fails the test."""

    def load(*args, **options):
        raise AssertionError("weights were read")

    monkeypatch.setattr(Pipeline, "load", load)
    monkeypatch.setattr(saved, "read", load)


def generate(run: Path, *args: object) -> None:
    main(["generate", str(run), *map(str, args)])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["1", "--count", "0"], "count is 0"),
        (["1", "--count", "1000000000"], "count is 1000000000; it must be at most"),
        (["1", "--seed", "-1"], "seed is -1"),
        (["1", "--seed", str(2**64)], "seed is 18446744073709551616"),
        (["1", "--seed", str(2**63 - 2), "--count", "3"], "the last seed would be over"),
        (["1", "--temperature", "nan"], "temperature is nan"),
        (["1", "--guidance", "nan"], "guidance is nan"),
        (["1", "--guidance", "inf"], "guidance is inf"),
        (["1", "--top-k", "nan"], "top-k is nan"),
        (["1", "--top-k", "inf"], "top-k is inf"),
        (["1", "--top-k", "2.5"], "top-k is 2.5"),
        (["1", "--batch", "0"], "batch is 0"),
        (["1", "--best-of", "-1"], "best-of is -1"),
        (["1", "--best-of", "2"], "best-of is 2, less than the 4 pictures"),
        (["1", "--judge", "x"], "--best-of"),
        (["1", "--best-of", "8", "--partial"], "--partial"),
        (["1", "--best-of", "8", "--judge", "nowhere"], "nowhere"),
        (["1", "--prime-rows", "0.5"], "--prime"),
        (["1", "--prime-rows", "nan", "--prime", "x"], "prime-rows is nan"),
        (["1", "--prime", "nope.png"], "nope.png cannot be used"),
        (["1", "--prompts", "nope.txt"], "nope.txt"),
        (["1", "--device", "gpu9"], "gpu9"),
        ([" "], "The prompt is empty"),
        (["1 \udcff"], "not text in UTF-8"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_weights_are_read(run, no_loading, capsys, tmp_path, args, says):
    assert says in fails(capsys, "generate", str(run), *args, "--out", str(tmp_path / "out"))


def test_a_place_that_cannot_be_written_is_refused_before_weights_are_read(run, no_loading, capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "is a file" in fails(capsys, "generate", str(run), "1", "--out", str(tmp_path / "file"))
    assert "cannot be written" in fails(capsys, "generate", str(run), "1", "--out", str(tmp_path / "file/below"))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_the_users_is_left_alone(run, no_loading, capsys, tmp_path):
    (tmp_path / "contact-sheet.png").write_text("mine")
    assert "Tessera did not begin it" in fails(capsys, "generate", str(run), "1", "--out", str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["contact-sheet.png"]


def test_a_missing_run_leaves_no_folder_behind(capsys, tmp_path):
    assert "no run folder" in fails(capsys, "generate", str(tmp_path / "x"), "1", "--out", str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_a_prompt_that_is_too_long_is_refused_before_the_first_is_drawn_or_cut_when_asked(run, capsys, tmp_path):
    out = tmp_path / "out"
    args = ["1 2", "1 2 3 4 5 6 7", "--count", "1", "--out", out]
    assert "'6 7' would be lost" in fails(capsys, "generate", str(run), *map(str, args))
    assert not list(out.rglob("*.png"))
    with pytest.warns(UserWarning, match="'6 7' is cut off"):
        generate(run, *args, "--truncate")
    assert len(list(out.rglob("0.png"))) == 2


def test_drawing_again_replaces_its_own_pictures_and_no_others(run, capsys, tmp_path):
    out = tmp_path / "out"
    generate(run, "1 2", "--count", 2, "--out", out)
    first = (out / "1_2/1.png").read_bytes()
    generate(run, "1 2", "--count", 2, "--out", out)
    assert (out / "1_2/1.png").read_bytes() == first
    assert sorted(p.name for p in out.iterdir()) == [".tessera", "1_2", "contact-sheet.png"]
    Image.new("RGB", (4, 4)).save(out / "1_2/1.png")
    mine = (out / "1_2/1.png").read_bytes()
    assert "1.png was not drawn by Tessera" in fails(
        capsys, "generate", str(run), "1 2", "--count", "2", "--out", str(out)
    )
    assert (out / "1_2/1.png").read_bytes() == mine
    generate(run, "1 2", "--count", 1, "--seed", 7, "--out", out)


def test_a_contact_sheet_of_the_users_is_kept(run, tmp_path):
    out = tmp_path / "out"
    generate(run, "1", "--count", 1, "--out", out)
    (out / "contact-sheet.png").write_text("mine")
    generate(run, "1", "--count", 1, "--out", out)
    assert (out / "contact-sheet.png").read_text() == "mine"
    assert (out / "contact-sheet-2.png").stat().st_size > 0


def test_a_folder_that_an_earlier_release_began_is_gone_on_with(run, tmp_path):
    (tmp_path / "a_bird").mkdir()
    (tmp_path / "a_bird/prompt.json").write_text('{"prompt": "a bird"}')
    (tmp_path / "contact-sheet.png").write_bytes(b"of an earlier release")
    generate(run, "1", "--count", 1, "--out", tmp_path)
    assert (tmp_path / "1/0.png").is_file()
    assert (tmp_path / "contact-sheet.png").read_bytes() == b"of an earlier release"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"prompt": 5}', '{"prompt": "another"}', "\ud800"])
def test_a_damaged_prompt_file_loses_no_picture(tmp_path, text):
    folder = prompt_folder(tmp_path, "a bird")
    Picture(Image.new("RGB", (4, 4)), "a bird", 0).save(folder / "0.png")
    (folder / "prompt.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    again = prompt_folder(tmp_path, "a bird")
    assert (again == folder) is (text != '{"prompt": "another"}')
    assert json.loads((again / "prompt.json").read_text())["prompt"] == "a bird"
    other = prompt_folder(tmp_path, "a bird?")
    assert other not in (folder, again)


def test_a_folder_or_file_of_the_users_is_not_taken_for_a_prompts(tmp_path):
    (tmp_path / "a_bird").mkdir()
    (tmp_path / "a_bird/notes.txt").write_text("mine")
    (tmp_path / "a_bird_2").write_text("mine")
    (tmp_path / "a_bird_3").symlink_to(tmp_path / "nowhere")
    assert prompt_folder(tmp_path, "a bird").name == "a_bird_4"
    assert os.listdir(tmp_path / "a_bird") == ["notes.txt"]


def test_pictures_are_written_whole(tmp_path, monkeypatch):
    path = tmp_path / "0.png"
    Picture(Image.new("RGB", (4, 4)), "x", 0).save(path)
    before = path.read_bytes()
    monkeypatch.setattr(
        Image.Image, "save", lambda self, file, *args, **options: Path(file).write_bytes(b"h") and 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        Picture(Image.new("RGB", (4, 4)), "x", 0).save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["0.png"]
    assert path.read_bytes() == before


def test_a_full_disk_is_a_sentence_and_what_was_drawn_is_kept(run, capsys, tmp_path, monkeypatch):
    save = Picture.save

    def full(self, path):
        if self.seed == 1:
            raise OSError(28, "No space left on device")
        save(self, path)

    monkeypatch.setattr(Picture, "save", full)
    said = fails(capsys, "generate", str(run), "1 2", "--count", "3", "--batch", "1", "--out", str(tmp_path / "out"))
    assert "1.png cannot be written: No space left on device" in said
    assert (tmp_path / "out/1_2/0.png").is_file()


# The sheet.


def test_a_prompt_of_a_million_letters_is_laid_out_at_once():
    picture = Picture(Image.new("RGB", (8, 8)), "word " * 200_000, 1)
    began = time.perf_counter()
    contact_sheet([picture])
    contact_sheet([Picture(Image.new("RGB", (8, 8)), "w" * 1_000_000, 1)])
    assert time.perf_counter() - began < 2


def test_lines_are_no_longer_than_the_tile():
    assert wrap("a bb ccc dddddddd e", 4, len, 9) == ["a bb", "ccc", "dddd", "dddd", "e"]
    assert wrap("a bb ccc dddddddd e", 4, len, 2) == ["a bb", "ccc"]
    assert wrap("", 4, len, 9) == []


def test_a_sheet_shows_some_of_very_many(monkeypatch, tmp_path):
    monkeypatch.setattr(sheet, "MOST", 3)
    pictures = [Picture(Image.new("RGB", (8, 8)), "x", i) for i in range(5)]
    assert contact_sheet(pictures).size == contact_sheet(pictures[:3]).size


# Stopping.


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_while_drawing_keeps_what_was_drawn(run, capsys, tmp_path, monkeypatch, number, status):
    save, before = Picture.save, signal.getsignal(signal.SIGTERM)

    def stop(self, path):
        if self.seed == 2:
            os.kill(os.getpid(), number)
        save(self, path)

    monkeypatch.setattr(Picture, "save", stop)
    with pytest.raises(SystemExit) as stopped:
        generate(run, "1 2", "--count", 4, "--batch", 1, "--out", tmp_path / "out")
    assert stopped.value.code == status
    assert f"stopped. Pictures kept in {tmp_path / 'out'}: 2." in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.png")) == ["0.png", "1.png", "contact-sheet.png"]
    assert signal.getsignal(signal.SIGTERM) == before


class Even:
    """A judge who likes all pictures equally."""

    def scores(self, pictures):
        return torch.zeros(len(pictures))


@pytest.mark.parametrize(("args", "more"), [(["--partial"], " Files of pictures"), (["--best-of", 4], "")])
def test_ctrl_c_in_the_middle_of_a_picture_is_one_line_and_leaves_whole_files(
    run, capsys, tmp_path, monkeypatch, args, more
):
    go_on, steps = raster._Drawing.go_on, itertools.count(1)

    def stop(self):
        if next(steps) == 12:
            os.kill(os.getpid(), signal.SIGINT)
        go_on(self)

    monkeypatch.setattr(raster._Drawing, "go_on", stop)
    monkeypatch.setattr(CLIPJudge, "load", staticmethod(lambda *args: Even()))
    with pytest.raises(SystemExit) as stopped:
        generate(run, "1 2", "--count", 2, *args, "--out", tmp_path / "out")
    assert stopped.value.code == 130
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"tessera: stopped. Pictures kept in {tmp_path / 'out'}: 0.{more}")
    assert "\n" not in said
    files = {p.name for p in (tmp_path / "out/1_2").iterdir()}
    assert files == {".tessera", "prompt.json"} | ({"0.png", "1.png"} if more else set())
    for path in (tmp_path / "out").rglob("*.png"):
        Image.open(path).load()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_that_somebody_elses_code_swallows_is_a_stop_all_the_same(
    run, capsys, tmp_path, monkeypatch, number, status
):
    load = Pipeline.load

    def swallowing(*args):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(9)
        return load(*args)

    monkeypatch.setattr(Pipeline, "load", swallowing)
    with pytest.raises(SystemExit) as stopped:
        generate(run, "1 2", "--count", 1, "--out", tmp_path / "out")
    assert stopped.value.code == status
    assert "stopped. Pictures kept in" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.png"))
