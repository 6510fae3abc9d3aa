"""The settings of the image tokenizer. They know no training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le

from tessera.config.network import MODELS, NetworkConfig
from tessera.config.quantizers import FSQ, Quantizer
from tessera.config.ranges import MOST_CODES, Channels, Pixels, Width
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DVAEConfig(NetworkConfig):
    """A discrete VAE (DALL-E, Ramesh et al. 2021, section 2.1): pixels <-> a grid of codes."""

    pixels: Pixels = 64
    """Side of the square pictures, a multiple of 2 ** layers."""
    channels: Channels = 3
    """1 grey, 2 grey + alpha, 3 colour, 4 colour + alpha."""
    quantizer: Quantizer = field(default_factory=FSQ)
    """Turns the encoder's output into codes; each kind has settings of its own."""
    layers: Annotated[int, Ge(1), Le(12)] = 3
    """Halvings of the side: the grid of codes has side pixels / 2 ** layers."""
    resblocks: Annotated[int, Ge(0), Le(1_024)] = 1
    """Residual blocks at the lowest resolution, in the encoder and in the decoder."""
    hidden: Width = 64
    """Width of every convolution."""
    reconstruction: Literal["mse", "smooth_l1"] = "mse"
    """The reconstruction loss, over normalised pixels."""
    mean: tuple[Annotated[float, Ge(-1e6), Le(1e6)], ...] = (0.5, 0.5, 0.5, 0.0)
    """Subtracted from the pixels, channel by channel."""
    std: tuple[Annotated[float, Ge(1e-6), Le(1e6)], ...] = (0.5, 0.5, 0.5, 1.0)
    """Divides the pixels, channel by channel."""

    @property
    def grid(self) -> int:
        return self.pixels >> self.layers

    @property
    def vocab(self) -> int:
        """How many different codes there are."""
        return self.quantizer.vocab

    def rules(self) -> None:
        if self.pixels % 2**self.layers:
            raise ConfigError(
                f"model.pixels is {self.pixels} and model.layers is {self.layers}: the side must be a multiple of "
                f"2 ** layers = {2**self.layers}. Try model.pixels {2**self.layers * max(1, self.grid)}."
            )
        if self.vocab > MOST_CODES:
            raise ConfigError(f"The image tokenizer has {self.vocab:,} codes; it may have {MOST_CODES:,} at most.")
        if min(len(self.mean), len(self.std)) < self.channels:
            raise ConfigError(f"model.mean and model.std need {self.channels} numbers each.")


MODELS["dvae"] = DVAEConfig
