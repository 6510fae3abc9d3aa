"""What a tokenizer's training compares besides pixels: one kind of settings for each network that looks. It knows no
network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le, MinLen

from tessera.config.merging import Kind
from tessera.config.ranges import NotNegative, ShareAboveZero


@dataclass(frozen=True, kw_only=True)
class Perceptual(Kind):
    """What is asked of the settings of every perceptual loss."""

    @classmethod
    def kinds(cls) -> Mapping[str, type[Perceptual]]:
        return PERCEPTUAL

    @property
    def networks(self) -> tuple[str, ...]:
        """The features of `evaluate` that must not judge what was trained so."""
        return ()


@dataclass(frozen=True, kw_only=True)
class NoPerceptual(Perceptual):
    """Compare pixels alone: nothing that others trained has any part in the model."""


@dataclass(frozen=True, kw_only=True)
class Lite0(Perceptual):
    """Compare what EfficientNet-Lite0 with ImageNet's weights sees, in the way of LPIPS (Zhang et al. 2018). Needs the
    extra `judge`."""

    weight: NotNegative = 1.0
    """Weight of the maps: squared distances of unit vectors, summed over the taps."""
    taps: Annotated[tuple[Annotated[int, Ge(0), Le(15)], ...], MinLen(1)] = (0, 2, 4, 10)
    """The blocks whose outputs are compared, 0 ... 15; 0 is the finest."""
    deep: NotNegative = 0.1
    """Weight of the same for the pooled head, which is what the whole picture shows; 0 leaves it out."""
    enlarge: Annotated[int, Ge(1), Le(8)] = 1
    """How many times larger than life the network sees the pictures."""
    shift: Annotated[int, Ge(0), Le(64)] = 3
    """Both pictures are moved by the same random number of pixels, at most this many, in each step: the network's
    strides would otherwise leave a pattern of their own."""

    adversary: NotNegative = 0.0
    """Weight of a critic that tells reconstructions from pictures by the same taps, as in Projected GAN (Sauer et al.
    2021); 0 is none."""
    adversary_from: ShareAboveZero = 0.75
    """Share of the training after which the critic speaks. From then on the codes stay as they are, and the decoder
    alone learns (after SeQ-GAN, Gu et al. 2022)."""

    @property
    def networks(self) -> tuple[str, ...]:
        return ("lite0",)


PERCEPTUAL: dict[str, type[Perceptual]] = {"none": NoPerceptual, "lite0": Lite0}
"""By the name that settings give it; `train/objectives/autoencoder.py` has the losses under the same names."""
