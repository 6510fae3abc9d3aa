"""What `learn` would choose for a folder of pictures, and the reason of each choice. It trains nothing."""

from __future__ import annotations

from typing import NamedTuple

from tessera.config import FSQ, LearnConfig, MachineConfig
from tessera.config.recipes import of_width
from tessera.data.check import Health
from tessera.errors import install
from tessera.journeys.choice import CAPTION_SHARE, Choice, choose, prior_preset, recipe_for
from tessera.machine.device import choose_device


class Chosen(NamedTuple):
    """One thing that was chosen."""

    name: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name:<11} {self.value:<12} {self.reason}"


def heading(config: LearnConfig, health: Health) -> str:
    """What it is chosen for."""
    return f"{len(health.good):,} captioned pictures, {config.budget}, {choose_device(config.device).type}:"


def explain(config: LearnConfig, health: Health) -> list[Chosen]:
    """Everything that `learn` would choose for these pictures."""
    machine = MachineConfig(device=config.device)
    r, c, found = recipe_for(config, machine), choose(config, health, machine), health.settings()
    prior = prior_preset(r, config)
    asked = "asked for" if config.pixels else f"the pictures allow {found['pixels']}, the recipe {r.pixels}"
    vocab, side = FSQ(levels=c.levels).vocab, 1 << c.layers
    codes = f"{'asked for' if config.grid else 'from the recipe'}; {vocab:,} different ones for {side} x {side} pixels"
    crops = f"crops of at least {c.crop:.0%}" if c.crop < 1 else "whole pictures"
    return [
        Chosen("pixels", f"{c.pixels}", asked),
        Chosen("codes", f"{c.grid} x {c.grid}", codes),
        Chosen("tokenizer", c.tokenizer, f"from the recipe; {c.tokenizer_share:.0%} of the time"),
        Chosen("perceptual", c.perceptual, _why_it_looks(config, c)),
        Chosen("prior", f"{c.dim} x {c.depth}", f"width and depth from {prior}; {c.prior_share:.0%} of the time"),
        Chosen("order", "any" if c.any_order else "reading", "asked for" if c.any_order else "--any-order can edit"),
        Chosen("rate", f"{of_width(c.dim).lr:g}", f"for this width{_of_matrices(c)}"),
        Chosen("warm-up", f"{c.warmup_share:.0%}" if c.warmup_share else "-", "of both trainings; then the rate falls"),
        Chosen("batch", f"{c.batch}", f"from {prior}"),
        Chosen("epochs", f"{c.epochs:g}", "what this machine can do in the prior's share of the time"),
        Chosen("dropout", f"{c.dropout:g}", "for so many epochs; so are the next two, and the shares of the time"),
        Chosen("decay", f"{c.weight_decay:g}", "of weights"),
        Chosen("noise", f"{c.noise:.0%}", "of the codes are replaced by near ones where they are read"),
        Chosen("views", f"{c.views}", f"{crops}, {'mirrored too' if c.flip else 'not mirrored: captions name sides'}"),
        Chosen("text", f"{c.text_len}", f"tokens hold {CAPTION_SHARE:.1%} of the captions"),
        Chosen("held out", f"{c.holdout:.0%}", "of the pictures"),
    ]


def _of_matrices(c: Choice) -> str:
    return f"; {c.muon_rate:g} for matrices, which Muon moves" if c.muon_rate else ""


def _why_it_looks(config: LearnConfig, c: Choice) -> str:
    if config.perceptual != "auto":
        return "asked for"
    if c.perceptual == "none":
        return f"pixels alone: {install('judge')} lets EfficientNet-Lite0 look too"
    return "EfficientNet-Lite0 looks too, which others trained on ImageNet; --perceptual none goes without"
