"""What `learn` chooses for pictures and a machine, and why. It knows the recipes, and trains nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from tessera.config import (
    FSQ,
    AnyOrderConfig,
    DVAEConfig,
    LearnConfig,
    MachineConfig,
    NetworkConfig,
    NoPerceptual,
    PyramidConfig,
    TextToImageConfig,
    TransformerConfig,
    kind_of,
    seconds,
)
from tessera.config.merging import read_json
from tessera.config.presets import preset
from tessera.config.recipes import Recipe, levels_for, of_width, recipe, repeats, views
from tessera.data.check import Health
from tessera.errors import ConfigError
from tessera.files.atomic import write_whole
from tessera.imports.imagenet import installed
from tessera.machine.device import choose_device
from tessera.tokens import text as text_tokens
from tessera.train.pace import pictures_a_second

TRAINED, SEARCH_SHARE = 0.85, 0.05
"""Of the budget: training both models, as it is planned, and finding how to draw; the rest is for checking, encoding
and the report."""
CAPTION_SHARE = 0.995
"""The text length fits this share of the captions; the others are cut."""
LOOK_AFTER = 3200
"""Pictures that an image tokenizer learns from between two looks at held-out ones."""
VOCAB = 4096
"""Largest text vocabulary."""
ALIKE = 0.9
"""How much codes with near vectors have in common where a prior begins (docs/ablation.md)."""

Pace = Callable[[NetworkConfig, MachineConfig, int], float]
"""A model, a machine and a batch -> pictures that training takes in a second."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Sizes for this data and this machine; written down once, so that a resumed run has the same.

    The defaults are what releases took that did not write the field down.
    """

    pixels: int
    layers: Annotated[int, Ge(1), Le(12)]
    """How often the image tokenizer halves a picture."""
    channels: int
    tokenizer: str = "dvae-s-64"
    """The preset that gives the image tokenizer its widths, and its batch."""
    hidden: int = 0
    """Width of a DVAE; a pyramid has its preset's."""
    perceptual: Literal["none", "lite0"] = "none"
    tokenizer_rate: float = 2e-3
    """Learning rate of the image tokenizer; halved where its codes collapsed."""
    tokenizer_muon_rate: float = 0.0
    """The same for its kernels, where Muon moves them; 0 leaves them to AdamW."""
    tokenizer_looks: Annotated[int, Ge(1)] = 200
    """Steps of the image tokenizer between two looks at held-out pictures."""
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
    epochs: float = 0.0
    """How often the prior was expected to see each picture."""
    dropout: float
    weight_decay: float = 0.05
    noise: float = 0.0
    """Share of the codes that near ones replace where the prior reads them."""
    alike: float = 0.0
    """How much codes with near vectors have in common where the prior begins."""
    head_dim: int = 64
    muon_rate: float = 0.0
    """Learning rate of the prior's matrices, where Muon moves them; 0 leaves them to AdamW."""
    tokenizer_share: Annotated[float, Ge(0), Le(TRAINED)] = 0.25
    """Of the budget."""
    spent: Annotated[float, Ge(0)] = 0.0
    """Seconds that checking and encoding took before the prior began, for which it makes room."""
    any_order: bool = False
    shift: bool = False
    """Whether the prior has a token shift, which one of any order cannot have."""
    warmup_share: Annotated[float, Ge(0), Le(1)] = 0.0
    """Of each training."""

    @property
    def grid(self) -> int:
        return self.pixels >> self.layers

    @property
    def prior_share(self) -> float:
        """Of the budget."""
        return round(TRAINED - self.tokenizer_share, 6)

    def __str__(self) -> str:
        return f"{self.pixels} px, {self.grid} x {self.grid} codes, a prior of width {self.dim} and depth {self.depth}"


def recipe_for(config: LearnConfig, machine: MachineConfig) -> Recipe:
    """The recipe that fits this machine and this budget."""
    device = "cuda" if choose_device(machine.device).type == "cuda" else "cpu"
    return recipe(device, seconds(config.budget) / 3600)


def prior_preset(chosen: Recipe, config: LearnConfig) -> str:
    """The preset of the prior that was asked for."""
    return chosen.any_order if config.any_order else chosen.prior


def choose(config: LearnConfig, health: Health, machine: MachineConfig, pace: Pace = pictures_a_second) -> Choice:
    """The recipe's presets, with what the pictures, the captions and the speed of this machine decide.

    `pace` measures how many pictures a second a prior learns from.
    """
    found, chosen = health.settings(), recipe_for(config, machine)
    prior = preset(prior_preset(chosen, config))
    assert isinstance(prior.model, TextToImageConfig)
    pixels = config.pixels or min(found["pixels"], chosen.pixels)
    layers = _halvings(pixels, config.grid or chosen.grid)
    first = Choice(
        **_tokenizer(config, chosen, layers),
        pixels=pixels,
        layers=layers,
        channels=3,
        dim=prior.model.transformer.dim,
        depth=prior.model.transformer.depth,
        batch=prior.optim.batch,
        text_len=_text_length(health.captions),
        vocab=VOCAB,
        views=2 if found["flip"] else 1,
        flip=found["flip"],
        crop=config.crop,
        holdout=found["holdout"],
        dropout=0.0,
        alike=ALIKE,
        any_order=config.any_order,
        shift=chosen.shift and not config.any_order,
        warmup_share=chosen.warmup,
    )
    learned = max(1.0, len(health.good) * (1 - first.holdout))
    own = of_width(first.dim)
    first = dataclasses.replace(first, head_dim=own.head_dim, muon_rate=own.muon_lr)
    epochs = pace(sized(first), machine, first.batch) * seconds(config.budget) / learned
    return _repeated(first, epochs, len(health.good))


def _repeated(c: Choice, epochs: float, pictures: int) -> Choice:
    """With what follows from how often the prior would see each picture if it had the whole budget."""
    often = repeats(epochs * c.prior_share)
    c = dataclasses.replace(c, tokenizer_share=often.tokenizer_share)
    seen = epochs * c.prior_share
    return dataclasses.replace(
        c, epochs=round(seen, 1), dropout=often.dropout, weight_decay=often.weight_decay, noise=often.noise,
        views=views(pictures, seen) if c.crop < 1 else c.views,
    )  # fmt: skip


def _tokenizer(config: LearnConfig, chosen: Recipe, layers: int) -> dict[str, Any]:
    """What of a choice is the image tokenizer's: its preset, which depends on what looks at pictures, its rate and its
    codes."""
    looks = config.perceptual if config.perceptual != "auto" else "lite0" if installed("lite0") else "none"
    name = chosen.plain if looks == "none" else chosen.tokenizer
    own = preset(name)
    assert isinstance(own.model, PyramidConfig)
    assert isinstance(own.model.quantizer, FSQ)
    return {
        "tokenizer": name, "perceptual": looks, "tokenizer_rate": own.optim.lr,
        "tokenizer_muon_rate": own.optim.muon_lr, "tokenizer_looks": LOOK_AFTER // own.optim.batch,
        "levels": levels_for(own.model.quantizer.levels, 1 << layers),
    }  # fmt: skip


def _text_length(captions: list[str]) -> int:
    """Text positions that hold nearly all captions, in the tokens of a vocabulary trained on them."""
    tokenizer = text_tokens.train_bpe(captions, VOCAB)
    lengths = sorted(len(tokenizer.encode(c)) for c in captions)
    fitting = lengths[min(len(lengths) - 1, int(CAPTION_SHARE * len(lengths)))]
    return min(-(-fitting // 4) * 4, 128)


def remembered(path: Path, config: LearnConfig, make: Callable[[], Choice]) -> Choice:
    """The choice of the first call, where there was one. Raises ConfigError where that was asked for something else, or
    where what it chose cannot be read."""
    if not path.exists():
        choice = make()
        write_down(path, choice)
        return choice
    choice = read_json(path, Choice)
    asked = {"pixels": config.pixels, "grid": config.grid and choice.pixels >> _halvings(choice.pixels, config.grid)}
    had = {"pixels": choice.pixels, "grid": choice.grid}
    other = [f"--{name} {had[name]}, not {value}" for name, value in asked.items() if value not in (0, had[name])]
    if config.perceptual not in ("auto", choice.perceptual):
        other.append(f"--perceptual {choice.perceptual}, not {config.perceptual}")
    if config.any_order != choice.any_order:
        other.append("--any-order" if choice.any_order else "--no-any-order")
    if config.crop != choice.crop:
        other.append(f"--crop {choice.crop}, not {config.crop}")
    if other:
        raise ConfigError(f"{path.parent} was begun with {'; '.join(other)}. Give the same, or another --out.")
    return choice


def write_down(path: Path, choice: Choice) -> None:
    """So that the next call has the same."""
    write_whole(path, json.dumps(dataclasses.asdict(choice), indent=1))


def _halvings(pixels: int, grid: int) -> int:
    """How often a picture is halved to come near to a grid of codes."""
    return max(1, (pixels // grid).bit_length() - 1)


def tokenizer_model(c: Choice) -> NetworkConfig:
    """The network of the choice's preset, cut to its pixels and its grid."""
    return CUTS[kind_of(preset(c.tokenizer).model)](c)


def _dvae(c: Choice) -> DVAEConfig:
    return DVAEConfig(
        pixels=c.pixels, layers=c.layers, channels=c.channels, hidden=c.hidden, quantizer=FSQ(levels=c.levels)
    )


def _pyramid(c: Choice) -> PyramidConfig:
    """Its patch grows with the picture; where that is too small for all levels, the finest are left out."""
    model = preset(c.tokenizer).model
    assert isinstance(model, PyramidConfig)
    halvings = min(len(model.widths) - 1, max(0, c.layers - 1))
    return dataclasses.replace(
        model, pixels=c.pixels, channels=c.channels, patch=1 << (c.layers - halvings),
        widths=model.widths[-1 - halvings :], quantizer=FSQ(levels=c.levels),
        perceptual=model.perceptual if c.perceptual == "lite0" else NoPerceptual(),
    )  # fmt: skip


CUTS = {"dvae": _dvae, "pyramid": _pyramid}
"""By the kind of the preset's model."""


def prior_model(c: Choice) -> TextToImageConfig:
    transformer = TransformerConfig(
        dim=c.dim, depth=c.depth, heads=max(1, c.dim // c.head_dim), head_dim=c.head_dim, attn_dropout=c.dropout,
        ff_dropout=c.dropout, shift=c.shift,
    )  # fmt: skip
    if c.any_order:
        return AnyOrderConfig(text_len=c.text_len, transformer=transformer, query_depth=c.depth // 2)
    return TextToImageConfig(text_len=c.text_len, transformer=transformer)


def sized(c: Choice) -> TextToImageConfig:
    """The prior with the sizes that its run will take from the image tokenizer and the captions."""
    vocab = FSQ(levels=c.levels).vocab
    return dataclasses.replace(prior_model(c), text_vocab=c.vocab, image_vocab=vocab, grid=c.grid)
