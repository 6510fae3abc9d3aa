"""The settings of the VQGAN, an image tokenizer. They know no training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le, MinLen

from tessera.config.autoencoder import AutoencoderConfig
from tessera.config.network import MODELS
from tessera.config.quantizers import Gumbel, Lookup
from tessera.config.ranges import Codes, NotNegative, Pixels, Width
from tessera.errors import ConfigError

Multiple = Annotated[int, Ge(1), Le(1_024)]


@dataclass(frozen=True, kw_only=True)
class VQGANConfig(AutoencoderConfig):
    """VQGAN (Esser et al. 2021), without its adversary: a convolutional autoencoder with attention, whose codes are the
    nearest vectors. The network is that of taming-transformers, so that its weights fit."""

    channels: ClassVar[int] = 3
    groups: ClassVar[int] = 32
    """Groups of channels that are normalised together."""
    may_change: ClassVar[tuple[str, ...]] = (*AutoencoderConfig.may_change, "commitment", "revive")

    pixels: Pixels = 256
    """Side of the square pictures, a multiple of 2 ** (number of widths - 1)."""
    width: Width = 128
    """Width of the first convolution, a multiple of 32."""
    widths: Annotated[tuple[Multiple, ...], MinLen(1)] = (1, 1, 2, 2, 4)
    """Width at each resolution, in multiples of `width`; each after the first halves the side."""
    resblocks: Annotated[int, Ge(1), Le(1_024)] = 2
    """Residual blocks at each resolution; the decoder has one more."""
    attention: tuple[Annotated[int, Ge(0), Le(1_024)], ...] = (4,)
    """Resolutions, 0 the finest, whose residual blocks are each followed by attention."""
    latent: Width = 256
    """Channels between the encoder and the quantizer."""
    code_dim: Width = 256
    """Width of a code's vector."""
    codes: Codes = 1024
    """How many different codes there are."""
    gumbel: bool = False
    """Choose codes by a linear map (GumbelVQ) instead of by distance."""
    commitment: NotNegative = 0.25
    """Weight of the loss that keeps the encoder near its codes; codes of a linear map have none."""
    revive: bool = False
    """Draw each code that a batch does not choose towards the encoder's output that is nearest to it, so that no code
    dies in training from scratch."""

    @property
    def vocab(self) -> int:
        return self.codes

    @property
    def grid(self) -> int:
        return self.pixels // self._factor

    @property
    def quantizer(self) -> Gumbel | Lookup:
        """How codes are chosen, as the settings of a quantizer."""
        if self.gumbel:
            return Gumbel(codes=self.codes, code_dim=self.code_dim, straight_through=True)
        return Lookup(codes=self.codes, code_dim=self.code_dim, commitment=self.commitment)

    @property
    def _factor(self) -> int:
        return 1 << (len(self.widths) - 1)

    def rules(self) -> None:
        if self.pixels % self._factor:
            raise ConfigError(
                f"model.pixels is {self.pixels} and model.widths has {len(self.widths)} levels: the side must be a "
                f"multiple of {self._factor}. Try model.pixels {self._factor * max(1, self.grid)}."
            )
        if self.width % self.groups:
            raise ConfigError(f"model.width is {self.width}; it must be a multiple of {self.groups}.")
        if wrong := [level for level in self.attention if level >= len(self.widths)]:
            raise ConfigError(
                f"model.attention has {wrong[0]}, and model.widths has {len(self.widths)} levels: the coarsest is "
                f"{len(self.widths) - 1}."
            )
        if self.gumbel and self.revive:
            raise ConfigError("model.revive moves codes that are chosen by distance: leave it out, or model.gumbel.")


MODELS["vqgan"] = VQGANConfig
