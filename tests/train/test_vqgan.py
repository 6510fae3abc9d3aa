"""VQGANs that learn: from nothing, and from an imported one, on pictures that are given in one more command."""

import dataclasses
import sys

import pytest
import torch
from safetensors.torch import load_file

from conftest import GOLDEN, fails
from small_runs import dvae_config, go, last_weights, whole_and_in_parts
from tessera.cli import main
from tessera.config import OptimConfig, SampleConfig, VQGANConfig
from tessera.generate.pipeline import Pipeline
from tessera.imports import runs
from tessera.models import saved
from tessera.models.vqgan import VQGAN
from tessera.store.run import Run, checkpoint_of
from tessera.tokens import image
from tessera.train.job import build

TINY = VQGANConfig(
    pixels=16, width=32, widths=(1, 1), resblocks=1, attention=(1,), latent=8, code_dim=4, codes=16, revive=True
)
FEW = ["--data.workers", "0", "--data.holdout", "0.3", "--machine.device", "cpu", "--machine.precision", "float32",
       "--steps", "2", "--optim.batch", "4", "--preview-every", "0", "--valid-every", "0"]  # fmt: skip


def test_three_steps_and_three_more_are_six_without_any_foreign_network(bird_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    whole, again = whole_and_in_parts(dvae_config(bird_folder, tmp_path / "whole", model=TINY, log_every=1))
    first, second = map(last_weights, (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = [row for row in whole.read_metrics() if "quantizer" in row]
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["reconstruction"] + rows[-1]["quantizer"], rel=1e-4)
    assert rows[-1]["codes_used"] > 0


def test_an_imported_vqgan_learns_in_one_more_command_and_serves_a_prior(bird_folder, tmp_path, capsys):
    """At pixels of the user's own, which its convolutions allow."""
    torch.manual_seed(0)
    model = VQGAN(dataclasses.replace(TINY, pixels=256, revive=False))
    torch.save({"state_dict": {**model.state_dict(), "loss.logvar": torch.zeros(1)}}, tmp_path / "last.ckpt")
    run, prior = tmp_path / "run", tmp_path / "prior"
    main(["import", str(tmp_path / "last.ckpt"), str(run), "--kind", "vqgan"])
    assert f"tessera train {run} --data.path PICTURES" in capsys.readouterr().out
    begun = load_file(checkpoint_of(run) / "weights.safetensors")
    assert all(torch.equal(begun[name], value) for name, value in model.state_dict().items())
    main(
        [
            "train",
            str(run),
            "--data.path",
            str(bird_folder),
            "--model.pixels",
            "16",
            "--model.reconstruction",
            "mse",
            *FEW,
        ]
    )
    learned = load_file(checkpoint_of(run) / "weights.safetensors")
    assert Run(run).latest().name == "step-000002"
    far = max(float((learned[name] - begun[name]).abs().max()) for name in begun)
    assert 0 < far <= 3e-4, "two steps of Adam at 1e-4 from what was imported"
    found = image.load(checkpoint_of(run))
    assert (found.pixels, found.grid, found.config.reconstruction) == (16, 8, "mse")
    said = fails(capsys, "train", run, "--model.codes", "17", "--steps", "3")
    assert "other settings (model.codes: 16 -> 17)" in said
    main(["train", "t2i-xs-64", "--out", str(prior), "--tokens.image", str(run), "--model.transformer.dim", "32",
          "--model.transformer.depth", "1", "--model.transformer.heads", "1", "--data.path", str(bird_folder), *FEW])  # fmt: skip
    assert Pipeline.load(str(prior), "cpu").draw(["a bird"], [0], SampleConfig())[0].image.size == (16, 16)


def test_what_its_weights_depend_on_cannot_be_changed_with_the_import(bird_folder, tmp_path, capsys):
    saved.write(tmp_path / "old", VQGAN(TINY))  # as earlier releases imported them
    runs.bring_in(str(tmp_path / "old"), tmp_path / "run")
    said = fails(capsys, "train", tmp_path / "run", "--data.path", bird_folder, "--model.codes", "17", *FEW)
    assert "other settings (model.codes: 16 -> 17)" in said


def test_a_tokenizer_trained_here_begins_a_run_on_other_pictures(bird_folder, tmp_path):
    first = dvae_config(bird_folder, tmp_path / "first", model=TINY)
    go(dataclasses.replace(first, steps=2, optim=OptimConfig(batch=4, lr=7e-4, warmup=0)))
    runs.bring_in(str(tmp_path / "first"), tmp_path / "second")
    config = Run(tmp_path / "second").config()
    assert (config.data.path, config.optim.lr, config.model) == ("", 7e-4, first.model)
    one, two = (load_file(checkpoint_of(tmp_path / name) / "weights.safetensors") for name in ("first", "second"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    main(["train", str(tmp_path / "second"), "--data.path", str(bird_folder), *FEW])
    assert Run(tmp_path / "second").latest().name == "step-000002"


def test_a_gumbel_vqgan_from_its_file_has_a_loss_and_gradients(tmp_path):
    runs.bring_in(str(GOLDEN / "vqgan" / "vqgan_gumbel_f16.ckpt"), tmp_path / "run")
    model = saved.read(checkpoint_of(tmp_path / "run")).train()
    pictures = torch.rand(1, 3, 64, 64)
    loss = model(pictures, 0.5)
    assert (loss.again.shape, loss.usage) == (pictures.shape, model.encode(pictures).unique().numel())
    loss.total.backward()
    assert model.encoder.conv_in.weight.grad.abs().sum() > 0


def test_learning_makes_reconstructions_better_and_uses_codes(bird_folder, tmp_path):
    config = dvae_config(bird_folder, tmp_path, model=TINY, steps=60, valid_every=10, save_every=60)
    run, _ = go(dataclasses.replace(config, optim=OptimConfig(batch=8, lr=2e-3, warmup=5)))
    rows = [row for row in run.read_metrics() if "held_loss" in row]
    assert rows[-1]["held_loss"] < 0.9 * rows[0]["held_loss"]
    assert rows[-1]["held_perplexity"] > 2


def test_a_preset_needs_the_judge_and_says_how_to_go_without(bird_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    out = ["--out", str(tmp_path / "run"), "--data.path", str(bird_folder), *FEW]
    assert "--model.perceptual none" in fails(capsys, "train", "vqgan-s-64", *out)
    objective = build(dvae_config(bird_folder, tmp_path / "none", model=TINY))
    assert [*objective.networks] == ["model"]


@pytest.mark.slow
def test_ranks_hold_one_network(ranks, bird_folder, tmp_path):
    from ranks import main_with

    small = ["--model.pixels", "16", "--model.widths", "1", "1", "--model.attention", "1", "--model.perceptual", "none"]
    args = ["train", "vqgan-s-64", "--data.path", str(bird_folder), "--out", str(tmp_path / "run"), *FEW, *small]
    ranks.run(2, main_with([*args, "--log-every", "1"]))  # the loop compares the ranks' weights before it saves
    assert Run(tmp_path / "run").latest().name == "step-000002"
