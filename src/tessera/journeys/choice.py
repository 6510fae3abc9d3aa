"""What `learn` chooses for pictures and a machine, and why. It knows the recipes, and trains nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from tessera.config import (
    FSQ,
    DataConfig,
    DVAEConfig,
    LearnConfig,
    MachineConfig,
    OptimConfig,
    TextToImageConfig,
    TokensConfig,
    TrainConfig,
    TransformerConfig,
    seconds,
)
from tessera.config.merging import read_json
from tessera.config.presets import Recipe, preset, rate, recipe
from tessera.data.check import Health
from tessera.errors import ConfigError
from tessera.files.atomic import write_whole
from tessera.machine.device import choose_device
from tessera.tokens import text as text_tokens

TOKENIZER_SHARE, PRIOR_SHARE, SEARCH_SHARE = 0.25, 0.6, 0.05
"""Of the budget: training either model, and finding how to draw; the rest is for checking, encoding and the report."""
CAPTION_SHARE = 0.995
"""The text length fits this share of the captions; the others are cut."""
VOCAB = 4096
"""Largest text vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Sizes for this data and this machine; written down once, so that a resumed run has the same."""

    pixels: int
    layers: Annotated[int, Ge(1), Le(12)]
    channels: int
    hidden: int
    levels: tuple[int, ...]
    dim: int
    depth: int
    batch: int
    text_len: int
    vocab: int
    views: int
    flip: bool
    crop: float
    holdout: float
    dropout: float

    @property
    def grid(self) -> int:
        return self.pixels >> self.layers

    def __str__(self) -> str:
        return f"{self.pixels} px, {self.grid} x {self.grid} codes, a prior of width {self.dim} and depth {self.depth}"


def recipe_for(config: LearnConfig, health: Health, machine: MachineConfig) -> Recipe:
    """The recipe that fits these pictures, this machine and this budget."""
    device = "cuda" if choose_device(machine.device).type == "cuda" else "cpu"
    return recipe(device, seconds(config.budget) / 3600, len(health.good))


def choose(config: LearnConfig, health: Health, machine: MachineConfig) -> Choice:
    """The recipe's presets, with what the pictures and the captions decide."""
    found, chosen = health.settings(), recipe_for(config, health, machine)
    vae, prior = preset(chosen.tokenizer), preset(chosen.prior)
    assert isinstance(vae.model, DVAEConfig)
    assert isinstance(prior.model, TextToImageConfig)
    pixels = config.pixels or min(found["pixels"], chosen.pixels)
    return Choice(
        pixels=pixels,
        layers=_halvings(pixels, config.grid or 16),
        channels=3,
        hidden=vae.model.hidden,
        levels=(8, 5, 5, 5) if config.grid == 8 else chosen.levels,
        dim=prior.model.transformer.dim,
        depth=prior.model.transformer.depth,
        batch=prior.optim.batch,
        text_len=_text_length(health.captions),
        vocab=VOCAB,
        views=chosen.views if config.crop < 1 else 2 if found["flip"] else 1,
        flip=found["flip"],
        crop=config.crop,
        holdout=found["holdout"],
        dropout=chosen.dropout,
    )


def _text_length(captions: list[str]) -> int:
    """Text positions that hold nearly all captions, in the tokens of a vocabulary trained on them."""
    tokenizer = text_tokens.train_bpe(captions, VOCAB)
    lengths = sorted(len(tokenizer.encode(c)) for c in captions)
    fitting = lengths[min(len(lengths) - 1, int(CAPTION_SHARE * len(lengths)))]
    return min(-(-fitting // 4) * 4, 128)


def explained(config: LearnConfig, health: Health) -> Iterator[str]:
    """What `learn` would choose for these pictures and why, in lines."""
    machine = MachineConfig(device=config.device)
    r, c, found = recipe_for(config, health, machine), choose(config, health, machine), health.settings()
    grid = "asked for" if config.grid else "the usual grid"
    yield f"{len(health.good):,} captioned pictures, {config.budget}, {choose_device(config.device).type}:"
    asked = "asked for" if config.pixels else f"the pictures allow {found['pixels']}, the recipe {r.pixels}"
    yield f"  pixels      {c.pixels:<12} {asked}"
    yield f"  codes       {f'{c.grid} x {c.grid}':<12} {grid}; {FSQ(levels=c.levels).vocab:,} different codes"
    yield f"  tokenizer   {f'width {c.hidden}':<12} from {r.tokenizer}"
    yield f"  prior       {f'{c.dim} x {c.depth}':<12} width and depth from {r.prior}; learning rate {rate(c.dim):g}"
    yield f"  batch       {c.batch:<12} from {r.prior}"
    few = f"the recipe for fewer than {r.pictures:,} pictures" if c.dropout else "not needed for so many pictures"
    yield f"  dropout     {c.dropout:<12} {few}"
    crops = f"crops of at least {c.crop:.0%}" if c.crop < 1 else "whole pictures"
    yield f"  views       {c.views:<12} {crops}, {'mirrored too' if c.flip else 'not mirrored: captions name sides'}"
    yield f"  text        {c.text_len:<12} tokens hold {CAPTION_SHARE:.1%} of the captions"
    yield f"  held out    {f'{c.holdout:.0%}':<12} of the pictures"


def remembered(path: Path, config: LearnConfig, make: Callable[[], Choice]) -> Choice:
    """The choice of the first call, where there was one. Raises ConfigError where that was asked for something else, or
    where what it chose cannot be read."""
    if not path.exists():
        choice = make()
        write_whole(path, json.dumps(dataclasses.asdict(choice), indent=1))
        return choice
    choice = read_json(path, Choice)
    asked = {"pixels": config.pixels, "grid": config.grid and choice.pixels >> _halvings(choice.pixels, config.grid)}
    had = {"pixels": choice.pixels, "grid": choice.grid}
    other = [f"--{name} {had[name]}, not {value}" for name, value in asked.items() if value not in (0, had[name])]
    if config.crop != choice.crop:
        other.append(f"--crop {choice.crop}, not {config.crop}")
    if other:
        raise ConfigError(f"{path.parent} was begun with {'; '.join(other)}. Give the same, or another --out.")
    return choice


def _halvings(pixels: int, grid: int) -> int:
    """How often a picture is halved to come near to a grid of codes."""
    return max(1, (pixels // grid).bit_length() - 1)


def stages(config: LearnConfig, c: Choice, machine: MachineConfig, out: Path) -> tuple[TrainConfig, TrainConfig]:
    """The two training runs: the image tokenizer, and the prior over its codes."""
    data = DataConfig(
        path=config.pictures, captions=config.captions, holdout=c.holdout, crop=c.crop, flip=c.flip, truncate=True
    )
    common = TrainConfig(seed=config.seed, steps=10**9, machine=machine, save_every=50, data=data)
    budget = seconds(config.budget)
    tokenizer = dataclasses.replace(
        common,
        out=str(out / "tokenizer"),
        budget=f"{round(budget * TOKENIZER_SHARE)}s",
        model=tokenizer_model(c),
        optim=OptimConfig(lr=2e-3, weight_decay=0.0, batch=c.batch, warmup=50, betas=(0.9, 0.99)),
        valid_every=200,
        preview_every=200,
    )
    prior = dataclasses.replace(
        common,
        out=str(out),
        budget=f"{round(budget * PRIOR_SHARE)}s",
        model=prior_model(c),
        data=dataclasses.replace(data, codes=str(out / "codes")),
        tokens=TokensConfig(image=str(out / "tokenizer"), vocab=c.vocab),
        optim=OptimConfig(lr=rate(c.dim), batch=c.batch),
        valid_every=100,
        preview_every=400,
    )
    return tokenizer, prior


def tokenizer_model(c: Choice) -> DVAEConfig:
    return DVAEConfig(
        pixels=c.pixels, layers=c.layers, channels=c.channels, hidden=c.hidden, quantizer=FSQ(levels=c.levels)
    )


def prior_model(c: Choice) -> TextToImageConfig:
    heads = max(1, c.dim // 64)
    transformer = TransformerConfig(dim=c.dim, depth=c.depth, heads=heads, attn_dropout=c.dropout, ff_dropout=c.dropout)
    return TextToImageConfig(text_len=c.text_len, transformer=transformer)
