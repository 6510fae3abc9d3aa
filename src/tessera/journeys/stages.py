"""The two training runs of a choice: the image tokenizer, and the prior over its codes. It knows no pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from tessera.config import (
    DataConfig,
    LearnConfig,
    MachineConfig,
    NoiseConfig,
    OptimConfig,
    TokensConfig,
    TrainConfig,
    seconds,
)
from tessera.config.presets import preset
from tessera.config.recipes import of_width
from tessera.journeys.choice import SEARCH_SHARE, Choice, prior_model, tokenizer_model
from tessera.store.run import Run

REPORT_SHARE, REPORT_MOST = 0.1, 45
"""Of the budget, and in seconds at most: drawing held-out captions, measuring and the report."""
ANNEAL = 0.15
"""Of the time that a prior has learned: a training that is to end soon takes so much more."""


def stages(config: LearnConfig, c: Choice, machine: MachineConfig, out: Path) -> tuple[TrainConfig, TrainConfig]:
    """Their settings."""
    data = DataConfig(
        path=config.pictures, captions=config.captions, holdout=c.holdout, crop=c.crop, flip=c.flip, truncate=True
    )
    common = TrainConfig(seed=config.seed, steps=10**9, machine=machine, save_every=50, data=data)
    budget = seconds(config.budget)
    tokenizer = dataclasses.replace(
        common,
        out=str(out / "tokenizer"),
        budget=f"{budget * c.tokenizer_share:.6g}s",
        model=tokenizer_model(c),
        optim=_tokenizer_optim(c),
        valid_every=c.tokenizer_looks,
        preview_every=c.tokenizer_looks,
        stop_collapsed=True,
    )
    prior = dataclasses.replace(
        common,
        out=str(out),
        budget=f"{budget * c.prior_share:.6g}s",
        model=prior_model(c),
        data=dataclasses.replace(data, codes=str(out / "codes")),
        tokens=TokensConfig(image=str(out / "tokenizer"), vocab=c.vocab, alike=c.alike),
        optim=_prior_optim(c),
        noise=NoiseConfig(codes=c.noise),
        valid_every=100,
        preview_every=400,
    )
    return tokenizer, prior


def _tokenizer_optim(c: Choice) -> OptimConfig:
    own = preset(c.tokenizer).optim
    return OptimConfig(
        name=_moved_by(c.tokenizer_muon_rate), lr=c.tokenizer_rate, muon_lr=c.tokenizer_muon_rate, weight_decay=0.0,
        batch=own.batch, warmup=50, betas=(0.9, 0.99), ema=own.ema,
        warmup_share=c.warmup_share,
    )  # fmt: skip


def _prior_optim(c: Choice) -> OptimConfig:
    return OptimConfig(
        name=_moved_by(c.muon_rate), lr=of_width(c.dim).lr, muon_lr=c.muon_rate, batch=c.batch,
        weight_decay=c.weight_decay, warmup_share=c.warmup_share,
    )  # fmt: skip


def _moved_by(muon_rate: float) -> Literal["muon", "adamw"]:
    """The optimiser of a model whose matrices have this rate of their own."""
    return "muon" if muon_rate else "adamw"


def prior_budget(config: LearnConfig, c: Choice, tokenizer: Run) -> str:
    """What is left of the time once the image tokenizer, which may have been trained long ago, checking and encoding
    took theirs, and drawing and the report keep theirs; half of the planned share at the least."""
    budget = seconds(config.budget)
    left = budget - c.spent - trained(tokenizer) - _kept(budget)
    return f"{max(c.prior_share / 2 * budget, left):.6g}s"


def good_end(c: Choice, tokenizer: Run, prior: Run) -> str:
    """The least budget, in whole minutes, with which a prior that was stopped learns for ANNEAL of its time more, in
    which its rate falls to the end of its schedule."""
    wanted, minutes = (1 + ANNEAL) * trained(prior) + c.spent + trained(tokenizer), 1
    while 60 * minutes - _kept(60 * minutes) < wanted:
        minutes += 1
    return f"{minutes}m"


def trained(run: Run) -> float:
    """Seconds that a run has trained."""
    return max((row.get("elapsed", 0.0) for row in run.read_metrics()), default=0.0)


def _kept(budget: float) -> float:
    """Seconds of a budget for finding how to draw, and for the report."""
    return SEARCH_SHARE * budget + min(REPORT_SHARE * budget, REPORT_MOST)
