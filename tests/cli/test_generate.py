"""`tessera generate`: what can be refused is refused before weights are read; nothing of the user's is overwritten."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from conftest import MODERN, TINY_DVAE, fails, prior
from tessera.cli import main
from tessera.generate import raster
from tessera.generate.judge import CLIPJudge
from tessera.generate.pipeline import Picture, Pipeline
from tessera.models import saved
from tessera.models.dvae import DiscreteVAE
from tessera.tokens.text import Numbers


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


@pytest.mark.parametrize("judge", [(), ("--judge", "self")])
def test_best_of_needs_no_judge_but_the_model(run, capsys, tmp_path, judge):
    generate(run, "1 2", "--count", 1, "--best-of", 3, *judge, "--out", tmp_path)
    (path,) = (tmp_path / "1_2").glob("*.png")
    with Image.open(path) as image:
        assert float(image.text["score"]) == float(image.text["score"])


@pytest.mark.parametrize(
    ("args", "more"), [(["--partial"], " Files of pictures"), (["--best-of", 4, "--judge", "x"], "")]
)
def test_ctrl_c_in_the_middle_of_a_picture_is_one_line_and_leaves_whole_files(
    run, capsys, tmp_path, monkeypatch, args, more
):
    draw, steps = raster._Canvas.draw, itertools.count(1)

    def stop(self, logits, first):
        if next(steps) == 12:
            os.kill(os.getpid(), signal.SIGINT)
        draw(self, logits, first)

    monkeypatch.setattr(raster._Canvas, "draw", stop)
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
