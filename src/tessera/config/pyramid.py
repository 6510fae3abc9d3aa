"""The settings of the pyramid, an image tokenizer. They know no training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le, MinLen

from tessera.config.autoencoder import AutoencoderConfig
from tessera.config.network import MODELS
from tessera.config.quantizers import FSQ, Quantizer
from tessera.config.ranges import MOST_CODES, Channels, Pixels, Width
from tessera.errors import ConfigError

Blocks = Annotated[int, Ge(0), Le(1_024)]


@dataclass(frozen=True, kw_only=True)
class PyramidConfig(AutoencoderConfig):
    """An image tokenizer whose convolutions grow wider as pictures grow smaller: pixels <-> a grid of codes."""

    pixels: Pixels = 64
    """Side of the square pictures, a multiple of patch * 2 ** (number of widths - 1)."""
    channels: Channels = 3
    """1 grey, 2 grey + alpha, 3 colour, 4 colour + alpha."""
    quantizer: Quantizer = field(default_factory=FSQ)
    """Turns the encoder's output into codes; each kind has settings of its own."""
    patch: Annotated[int, Ge(1), Le(64)] = 2
    """Side of the squares of pixels that become the channels of one place, before any convolution."""
    widths: Annotated[tuple[Width, ...], MinLen(1)] = (48, 96, 160)
    """Width of each level, the finest first; each after the first has half the side of the one before."""
    groups: Width = 8
    """Groups of channels that are normalised together (Wu & He 2018); every width must be a multiple."""
    encoder_blocks: Blocks = 1
    """Residual blocks on every level of the encoder."""
    decoder_blocks: Blocks = 1
    """Residual blocks on every level of the decoder."""

    @property
    def grid(self) -> int:
        return self.pixels // self._factor

    @property
    def vocab(self) -> int:
        """How many different codes there are."""
        return self.quantizer.vocab

    @property
    def _factor(self) -> int:
        return self.patch << (len(self.widths) - 1)

    def rules(self) -> None:
        if self.pixels % self._factor:
            raise ConfigError(
                f"model.pixels is {self.pixels}, model.patch {self.patch}, and model.widths has {len(self.widths)} "
                f"levels: the side must be a multiple of {self._factor}. "
                f"Try model.pixels {self._factor * max(1, self.grid)}."
            )
        if wrong := [width for width in self.widths if width % self.groups]:
            raise ConfigError(f"model.widths has {wrong[0]}, which is not a multiple of model.groups ({self.groups}).")
        if self.vocab > MOST_CODES:
            raise ConfigError(f"The image tokenizer has {self.vocab:,} codes; it may have {MOST_CODES:,} at most.")


MODELS["pyramid"] = PyramidConfig
