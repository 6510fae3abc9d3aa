"""What image tokenizers have in common that learn from their reconstructions. It knows no layers, no text, no files and
no perceptual loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

RECONSTRUCTION = {"l1": F.l1_loss, "mse": F.mse_loss}


class Reconstructed(NamedTuple):
    """total = weighted reconstruction + quantizer."""

    total: Tensor
    again: Tensor
    """[B, C, S, S]: the reconstruction, in pixels that may lie outside 0 ... 1."""
    reconstruction: Tensor
    quantizer: Tensor
    """What the quantizer itself asks to be minimised, weighted."""
    usage: Tensor
    """How many different codes the batch has."""


class GroupNorm(nn.GroupNorm):
    """In float32 whatever the precision around it, which is also faster on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float()).to(input.dtype)


class Autoencoder(nn.Module, ABC):
    """Encoder, quantizer, decoder; pixels are 0 ... 1 on both sides."""

    splits = False
    """Whether a batch may be cut into micro-batches: some quantizers look at a batch as a whole."""
    quantize: Any

    @staticmethod
    def inputs(config: Any, rows: int) -> tuple[Tensor, float]:
        """What training calls it with, all zero."""
        return torch.zeros(rows, config.channels, config.pixels, config.pixels), 1.0

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.reconstruction = RECONSTRUCTION[config.reconstruction]

    @abstractmethod
    def latent(self, x: Float[Tensor, "B C S S"]) -> Float[Tensor, "B D h w"]:
        """What the quantizer reads, of pixels -1 ... 1."""

    @abstractmethod
    def drawn(self, vectors: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C S S"]:
        """Pixels about -1 ... 1, of what the quantizer gives."""

    def forward(self, pixels: Float[Tensor, "B C S S"], temperature: float, settled: bool = False) -> Reconstructed:
        """The reconstruction, through codes with the quantizer's noise, and its loss in pixels. Where the codes are
        `settled`, no gradient reaches what makes them."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not settled):
            made = self.quantize(self.latent(2 * pixels - 1), temperature)
        again = self._pixels(made.vectors)
        wrong = self.reconstruction(again, pixels)
        return Reconstructed(self.config.pixel_weight * wrong + made.loss, again, wrong, made.loss, made.usage)

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "B C S S"]) -> Int[Tensor, "B N"]:
        """The code at each place, in reading order; no noise."""
        return self.quantize.codes(self.latent(2 * pixels - 1))

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B C S S"]:
        """Pixels 0 ... 1."""
        side = self.config.grid
        return self._pixels(self.quantize.vectors(codes).transpose(1, 2).unflatten(2, (side, side))).clamp(0, 1)

    def _pixels(self, vectors: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C S S"]:
        return (self.drawn(vectors).float() + 1) / 2
