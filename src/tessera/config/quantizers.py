"""How an encoder's output becomes codes: one kind of settings for each quantizer. It knows no networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen

from tessera.config.merging import Kind
from tessera.config.ranges import Codes, NotNegative, Positive, ShareBelowOne, Width
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Quantizer(Kind):
    """What is asked of the settings of every quantizer."""

    @classmethod
    def kinds(cls) -> Mapping[str, type[Quantizer]]:
        return QUANTIZERS

    @property
    def vocab(self) -> int:
        """How many different codes there are."""
        raise NotImplementedError

    def temperature_at(self, done: float) -> float:
        """The temperature once a share `done` of the training is done; most quantizers have none."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class FSQ(Quantizer):
    """Round each channel to one of a few levels; no codebook to learn (Mentzer et al. 2023)."""

    levels: Annotated[tuple[Codes, ...], MinLen(1)] = (8, 5, 5, 5)
    """Levels of each channel; their product is the number of codes."""
    bound: Literal["tanh", "sigmoid"] = "tanh"
    """Keeps channels inside their levels: tanh(x), or 2 sigmoid(1.6 x) - 1 = tanh(0.8 x), which fills the outer levels
    less (iFSQ, 2026)."""

    @property
    def vocab(self) -> int:
        return math.prod(self.levels)


@dataclass(frozen=True, kw_only=True)
class Codebook(Quantizer):
    """What all quantizers with a codebook have."""

    codes: Codes = 512
    """How many different codes there are (the codebook's size)."""
    code_dim: Width = 32
    """Width of a code's vector."""

    @property
    def vocab(self) -> int:
        return self.codes


@dataclass(frozen=True, kw_only=True)
class Gumbel(Codebook):
    """Choose from a codebook by logits with Gumbel noise, as DALL-E 1 did (Jang et al. 2017)."""

    code_dim: Width = 256
    """Width of a code's vector."""
    kl_weight: NotNegative = 0.0
    """Weight of KL(codes of a picture || uniform), averaged over the batch."""
    temperature: Positive = 1.0
    """Gumbel-softmax temperature at the first step."""
    temperature_end: Positive = 0.1
    """Temperature at the last step; it falls geometrically with the share of training that is done."""
    straight_through: bool = False
    """Use one-hot codes in the forward pass (Jang et al. 2017)."""
    reinmax: bool = False
    """Second-order gradient for straight_through (Liu et al. 2023)."""

    def temperature_at(self, done: float) -> float:
        return self.temperature * (self.temperature_end / self.temperature) ** done

    def rules(self) -> None:
        if self.reinmax and not self.straight_through:
            raise ConfigError("quantizer.reinmax corrects the straight-through gradient: set straight-through too.")
        if self.temperature_end > self.temperature:
            raise ConfigError(
                f"quantizer.temperature-end is {self.temperature_end}; it must be at most quantizer.temperature "
                f"({self.temperature})."
            )


@dataclass(frozen=True, kw_only=True)
class Lookup(Codebook):
    """Take the nearest vector of a learned codebook (VQ-VAE, van den Oord et al. 2017)."""

    commitment: NotNegative = 0.25
    """Weight of the loss that keeps the encoder near its codes."""


@dataclass(frozen=True, kw_only=True)
class LFQ(Quantizer):
    """Take the sign of each channel; no codebook (Yu et al. 2023). Needs the extra `quantizers`."""

    bits: Annotated[int, Ge(1), Le(18)] = 10
    """Channels; there are 2 ** bits codes."""
    entropy_weight: NotNegative = 0.1
    """Weight of the loss that makes each code sure and all codes used."""
    diversity: NotNegative = 1.0
    """Weight, inside that loss, of all codes being used."""
    commitment: NotNegative = 0.25
    """Weight of the loss that keeps the encoder near its codes."""

    @property
    def vocab(self) -> int:
        return 2**self.bits


@dataclass(frozen=True, kw_only=True)
class SimVQ(Codebook):
    """Take the nearest vector of a fixed codebook that one learned matrix turns, so that all its codes move together
    (Zhu et al. 2024). Needs the extra `quantizers`."""

    commitment: NotNegative = 0.25
    """Weight of the loss that keeps the encoder near its codes."""
    rotation: bool = True
    """Pass gradients by rotating them (Fifty et al. 2024) instead of straight through."""


@dataclass(frozen=True, kw_only=True)
class EMA(Codebook):
    """Take the nearest vector of a codebook that follows moving averages of what chose it (van den Oord et al. 2017,
    appendix A). Needs the extra `quantizers`."""

    decay: ShareBelowOne = 0.99
    """Share of its average that a code keeps at each step."""
    commitment: NotNegative = 0.25
    """Weight of the loss that keeps the encoder near its codes."""
    rotation: bool = True
    """Pass gradients by rotating them (Fifty et al. 2024) instead of straight through."""


QUANTIZERS: dict[str, type[Quantizer]] = {
    "fsq": FSQ,
    "gumbel": Gumbel,
    "lookup": Lookup,
    "lfq": LFQ,
    "simvq": SimVQ,
    "ema": EMA,
}
"""By the name that settings give it; `models/quantizers.py` has the modules under the same names."""
