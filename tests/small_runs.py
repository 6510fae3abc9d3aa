"""Training runs that take a moment: a discrete VAE and a prior on a folder of birds."""

import dataclasses
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from conftest import MODERN, TINY_DVAE, prior
from tessera.config import (
    DataConfig,
    DVAEConfig,
    Gumbel,
    MachineConfig,
    OptimConfig,
    TextToImageConfig,
    TokensConfig,
    TrainConfig,
    TransformerConfig,
)
from tessera.models import saved
from tessera.models.dvae import DiscreteVAE
from tessera.store.run import Run
from tessera.tokens.text import Numbers
from tessera.train.engines.single import SingleEngine
from tessera.train.job import build
from tessera.train.loop import train
from tessera.train.track import JSONL

PLAIN = MachineConfig(device="cpu", precision="float32", threads=1)
DVAE = DVAEConfig(pixels=16, layers=2, hidden=8, quantizer=Gumbel(codes=12, code_dim=8))
PRIOR = TextToImageConfig(
    transformer=TransformerConfig(dim=32, depth=2, heads=2, head_dim=16, ff_dropout=0.1, attn_dropout=0.1)
)


def dvae_config(folder: Path, out: Path, **changes) -> TrainConfig:
    data = DataConfig(path=str(folder), holdout=0.2, flip=True, workers=0)
    base = TrainConfig(
        out=str(out), steps=6, save_every=3, valid_every=2, preview_every=0, model=DVAE, data=data, machine=PLAIN,
        optim=OptimConfig(batch=4, warmup=2),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def go(config: TrainConfig, show=lambda objective, path: ""):
    config.check()
    objective, run = build(config), Run(config.out)
    run.open(objective.config)
    tracker = JSONL(run)
    try:
        at = train(objective.config, objective, SingleEngine(config.machine), run, tracker, show)
    finally:
        tracker.close()
    return run, at


def whole_and_in_parts(config: TrainConfig) -> tuple[Run, Run]:
    """A training of six steps, and one that is stopped after three of them and goes on; at a constant learning rate,
    because a share of three steps is not that of six."""
    config = dataclasses.replace(config, steps=6, optim=OptimConfig(batch=4, warmup=2, schedule="constant"))
    whole, _ = go(config)
    parts = dataclasses.replace(config, out=f"{config.out}-in-parts")
    go(dataclasses.replace(parts, steps=3))
    again, _ = go(parts)
    return whole, again


def last_weights(run: Run) -> dict[str, Tensor]:
    """Of the newest checkpoint, as drawing reads them."""
    return load_file(run.checkpoints()[-1] / "weights.safetensors")


def prior_config(folder: Path, out: Path, tokenizer: Path, **changes) -> TrainConfig:
    return dvae_config(folder, out, model=PRIOR, tokens=TokensConfig(image=str(tokenizer), vocab=300), **changes)


def spoil(monkeypatch, steps):
    """Make the loss NaN at some steps (None: at all)."""
    forward, count = DiscreteVAE.forward, iter(range(1, 1000))

    def spoiled(self, x, t):
        loss = forward(self, x, t)
        if x.is_meta:  # operations are counted once for each size, so whether this happens hangs on what ran before
            return loss
        step = next(count)
        return loss._replace(total=loss.total * math.nan) if steps is None or step in steps else loss

    monkeypatch.setattr(DiscreteVAE, "forward", spoiled)


def run_folder(folder: Path, step: int = 1) -> Path:
    """A run with a checkpoint of a tiny model, whose prompts are numbers and whose weights are chance's, by its step."""
    torch.manual_seed(step)
    checkpoint = folder / f"step-{step:06d}"
    saved.write(checkpoint, prior(MODERN, image_vocab=27))
    saved.write(checkpoint / "image_tokenizer", DiscreteVAE(TINY_DVAE))
    Numbers(20).save(checkpoint / "text_tokenizer")
    (folder / ".tessera").write_text('{"kind": "run"}')
    (folder / "config.json").write_text('{"model": {"kind": "t2i"}}')
    (folder / "latest").write_text(checkpoint.name)
    return folder
