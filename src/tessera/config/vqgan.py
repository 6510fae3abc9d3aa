"""The settings of the VQGAN and its relatives, image tokenizers. They know no training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

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
    nearest vectors. The network is that of taming-transformers, so that its weights fit; the tokenizers of LlamaGen,
    diffusers and IBQ are the same network with other values of `choice`, `groups` and the fields after them."""

    channels: ClassVar[int] = 3
    may_change: ClassVar[tuple[str, ...]] = (*AutoencoderConfig.may_change, "commitment", "revive")

    pixels: Pixels = 256
    """Side of the square pictures, a multiple of 2 ** (number of widths - 1)."""
    width: Width = 128
    """Width of the first convolution, a multiple of `groups`."""
    widths: Annotated[tuple[Multiple, ...], MinLen(1)] = (1, 1, 2, 2, 4)
    """Width at each resolution, in multiples of `width`; each after the first halves the side."""
    level_widths: tuple[Width, ...] = ()
    """Width at each resolution in channels; replaces `widths` where these are not multiples of `width`."""
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
    choice: Literal["nearest", "unit", "product"] = "nearest"
    """Which vector is an output's code: the nearest; the one whose direction is nearest, which the decoder gets as a
    unit vector (ViT-VQGAN, LlamaGen); or the one whose product with it is largest (IBQ)."""
    groups: Annotated[int, Ge(1), Le(1_024)] = 32
    """Groups of channels that are normalised together."""
    middle_attention: bool = True
    """Whether the two blocks in the middle have attention between them."""
    from_zero: bool = False
    """Whether the network itself counts pixels from 0 to 1 (aMUSEd) instead of from -1 to 1."""
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
    def each_width(self) -> tuple[int, ...]:
        """Width at each resolution, the finest first."""
        return self.level_widths or tuple(self.width * multiple for multiple in self.widths)

    @property
    def _factor(self) -> int:
        return 1 << (len(self.each_width) - 1)

    def rules(self) -> None:
        levels = len(self.each_width)
        if self.pixels % self._factor:
            raise ConfigError(
                f"model.pixels is {self.pixels} and model.widths has {levels} levels: the side must be a "
                f"multiple of {self._factor}. Try model.pixels {self._factor * max(1, self.grid)}."
            )
        if wrong := [width for width in (self.width, *self.each_width) if width % self.groups]:
            raise ConfigError(f"model.width is {wrong[0]}; it must be a multiple of {self.groups}.")
        if wrong := [level for level in self.attention if level >= levels]:
            raise ConfigError(
                f"model.attention has {wrong[0]}, and model.widths has {levels} levels: the coarsest is {levels - 1}."
            )
        if self.gumbel and self.choice != "nearest":
            raise ConfigError(f"model.choice is {self.choice}; model.gumbel chooses by a linear map: leave one out.")
        if self.revive and (self.gumbel or self.choice != "nearest"):
            raise ConfigError(
                "model.revive moves codes that are chosen by distance: leave it out, or model.gumbel and model.choice."
            )


MODELS["vqgan"] = VQGANConfig
