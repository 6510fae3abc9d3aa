"""Whole journeys on photographs and birds: a model that copies is called a copier, one that saw each picture once is not,
and a caption that is read is worth something. Minutes each."""

from __future__ import annotations

import dataclasses
import random
import shutil
from pathlib import Path

import pytest
import torch

from tessera.cli import main
from tessera.config import EvaluateConfig
from tessera.errors import TesseraError
from tessera.evaluate import features
from tessera.evaluate.evaluation import evaluate
from tessera.evaluate.likelihood import others, tokens_of
from tessera.evaluate.subject import Subject
from tessera.generate.likelihood import nats
from tessera.journeys import birds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # a busy machine
PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "cub_layout"
COMMON = ["--machine.device", "cpu", "--machine.precision", "float32", "--data.workers", "0", "--preview-every", "0",
          "--save-every", "100000"]  # fmt: skip


def silent(title: str):
    return lambda items, total: items


def network() -> str:
    try:
        features.load("lite2", "cpu")
    except TesseraError:
        return "none"
    return "lite2"


def photographs(folder: Path, count: int) -> Path:
    """The first ones, each with its captions beside it."""
    if not PHOTOGRAPHS.is_dir():
        pytest.skip("the photographs are not here")
    folder.mkdir()
    found = sorted((PHOTOGRAPHS / "CUB_200_2011" / "images").rglob("*.jpg"))
    for picture in found[:: max(1, len(found) // count)][:count]:
        shutil.copy(picture, folder / picture.name)
        text = PHOTOGRAPHS / "text_c10" / picture.parent.name / f"{picture.stem}.txt"
        shutil.copy(text, folder / text.name)
    return folder


def trained(folder: Path, out: Path, tokenizer: int, prior: int, holdout: float, crop: float = 1.0) -> Path:
    """A tokenizer of 8 x 8 codes at 32 px and a prior, for so many steps each."""
    data = ["--data.path", str(folder), "--data.holdout", str(holdout), "--data.crop", str(crop), *COMMON]
    main(["train", "dvae-xs-64", "--out", str(out / "vae"), "--steps", str(tokenizer), "--model.pixels", "32", "--model.layers", "2",
          "--model.hidden", "32", "--model.quantizer.levels", "6", "6", "6", "--optim.batch", "16", "--optim.lr", "4e-3", "--valid-every", "0", *data])  # fmt: skip
    main(["train", "t2i-xs-64", "--out", str(out / "prior"), "--steps", str(prior), "--tokens.image", str(out / "vae"), "--data.truncate",
          "--model.text-len", "24", "--model.transformer.dim", "128", "--model.transformer.depth", "3", "--model.transformer.heads", "2",
          "--optim.batch", "32", "--optim.lr", "4e-3", "--optim.warmup", "10", "--optim.weight-decay", "0", "--valid-every", "0", *data])  # fmt: skip
    return out / "prior"


CONFIG = EvaluateConfig(count=120, seeds=2, ranked=10, guidance=1.0, device="cpu")


def test_a_model_that_learned_sixty_photographs_by_heart_is_called_a_copier_and_the_sheet_shows_why(tmp_path):
    folder = photographs(tmp_path / "photographs", 80)
    run = trained(folder, tmp_path, tokenizer=300, prior=150, holdout=0.25)
    shown = evaluate(str(run), dataclasses.replace(CONFIG, features=network()), silent)
    e = shown.evaluation
    figures = {f.name: f for f in e.figures}
    assert e.verdict
    assert e.verdict.word == "copies", e.verdict
    assert figures["membership by likelihood, AUC"].value.low > 0.9
    run_length = figures["longest run of shared codes"]
    assert run_length.ceiling
    assert run_length.value.low > 2 * run_length.ceiling.high
    suspects = shown.beside[:12]
    # The likeliest copies are what the codes keep of their neighbour, but for rounding.
    assert sum(int((b.drawing.int() - b.kept.int()).abs().max()) <= 2 for b in suspects) >= 10
    assert all(b.suspect < 0.3 for b in suspects)


def test_a_model_that_saw_seven_hundred_photographs_once_draws_anew(tmp_path):
    folder = photographs(tmp_path / "photographs", 700)
    run = trained(folder, tmp_path, tokenizer=200, prior=20, holdout=0.1)
    e = evaluate(str(run), dataclasses.replace(CONFIG, features=network()), silent).evaluation
    assert e.verdict
    assert e.verdict.word == "draws anew", e.verdict
    auc = next(f for f in e.figures if f.name == "membership by likelihood, AUC").value
    assert auc.low < 0.55


def test_shuffled_captions_are_found_out_by_what_the_caption_is_worth(tmp_path):
    birds.draw_folder(tmp_path / "birds", 600, pixels=32, seed=1)
    run = trained(tmp_path / "birds", tmp_path, tokenizer=150, prior=150, holdout=0.15)
    subject = Subject.load(run, device="cpu")
    held, pixels = subject.readable(subject.held)
    codes, captions = subject.codes(pixels.float() / 255), [p.captions[0] for p in held]
    mixed = [captions[i] for i in others(len(captions), 0)]
    random.Random(1).shuffle(mixed)

    def worth(told: list[str]) -> torch.Tensor:
        tokens = tokens_of(subject.model, subject.text, told)  # type: ignore[arg-type]
        return (
            nats(subject.model, subject.model.null_caption(tokens), codes) - nats(subject.model, tokens, codes)
        ).sum(1)  # type: ignore[arg-type,operator]

    true, false = worth(captions), worth(mixed)
    assert float(true.mean()) > 3 * float(true.std()) / len(true) ** 0.5, "a true caption saves nats"
    assert float((true - false).mean()) > 3 * float((true - false).std()) / len(true) ** 0.5, "a wrong one does not"
