"""`tessera edit`: what cannot be is said before weights are read; what is kept is kept, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import MODERN, TINY_DVAE, fails, prior
from models.test_any_order import any_prior
from tessera.cli import main
from tessera.generate.pipeline import Pipeline
from tessera.models import saved
from tessera.models.dvae import DiscreteVAE
from tessera.models.text_to_image import TextToImage
from tessera.tokens.text import Numbers


def run_of(folder: Path, model: TextToImage) -> Path:
    """A run folder whose prompts are numbers."""
    checkpoint = folder / "run" / "step-000001"
    torch.manual_seed(0)
    saved.write(checkpoint, model)
    saved.write(checkpoint / "image_tokenizer", DiscreteVAE(TINY_DVAE))
    Numbers(20).save(checkpoint / "text_tokenizer")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("any"), any_prior(image_vocab=27))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path := tmp_path / "x.png")
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    own = Image.new("L", (16, 16))
    own.paste(255, (4, 4, 12, 12))
    own.save(path := tmp_path / "m.png")
    return path


def edit(run: Path, *args: object) -> None:
    main(["edit", str(run), *map(str, args)])


def test_a_part_is_drawn_anew_beside_a_sheet_of_all(run, picture, mask, tmp_path, capsys):
    out = tmp_path / "out"
    edit(run, picture, "1 2", "--mask", mask, "--count", 3, "--seed", 5, "--out", out, "--steps", 2)
    found = [np.array(Image.open(out / "1_2" / f"{seed}.png")) for seed in (5, 6, 7)]
    before = np.array(Image.open(picture))
    wanted = Pipeline.load(run, "cpu").edit(picture, "1 2", mask, count=3, seed=5, steps=2)
    for own, same in zip(found, wanted, strict=True):
        assert np.array_equal(own, np.array(same.image))
        assert np.array_equal(own[:2], before[:2])
        assert not np.array_equal(own[4:12, 4:12], before[4:12, 4:12])
    assert "grey where it is drawn anew" in capsys.readouterr().out
    assert (out / "contact-sheet.png").is_file()


def test_a_folder_that_it_did_not_begin_is_left_alone(run, picture, mask, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "1_2").mkdir(parents=True)
    (out / "1_2" / "0.png").write_bytes(b"somebody's own")
    fails(capsys, "edit", run, picture, "1 2", "--mask", mask, "--out", out)
    assert (out / "1_2" / "0.png").read_bytes() == b"somebody's own"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--outpaint", "1,2"], "outpaint is '1,2'; give four numbers"),
        (["--vary", "2"], "vary is 2.0"),
        (["--mask", "nowhere.png"], "The mask nowhere.png cannot be used: the file is not there"),
        (["--count", "0"], "count is 0"),
        (["--steps", "-1"], "steps is -1"),
    ],
)
def test_wrong_options_are_said_before_weights_are_read(run, picture, args, says, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Pipeline, "load", lambda *a, **o: pytest.fail("weights were read"))
    assert says in fails(capsys, "edit", run, picture, "1 2", *args)


def test_a_picture_that_is_none_is_said_by_name(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").write_bytes(b"junk")
    assert "The image x.png cannot be used: not a picture" in fails(capsys, "edit", run, "x.png", "1 2")


def test_a_run_of_reading_order_says_what_it_can_keep(picture, mask, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own = run_of(tmp_path, prior(MODERN, image_vocab=27))
    assert "keeps whole rows at the top" in fails(capsys, "edit", own, picture, "1 2", "--mask", mask)
    assert "steps is 4, but this model draws in reading order" in fails(capsys, "generate", own, "1 2", "--steps", 4)
