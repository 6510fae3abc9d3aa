"""The pyramid, an image tokenizer: pixels <-> a grid of codes. It knows no text, no files and no perceptual loss."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import PyramidConfig
from tessera.models.quantizers import quantizer

RECONSTRUCTION = {"l1": F.l1_loss, "mse": F.mse_loss}


class PyramidLoss(NamedTuple):
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


class Block(nn.Module):
    """Norm, SiLU, 3 x 3, twice; added to the input."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.net = nn.Sequential(*convolution(width, width, groups), *convolution(width, width, groups))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


def convolution(wide: int, width: int, groups: int, side: int = 3) -> tuple[nn.Module, ...]:
    """Norm, SiLU, and a convolution that keeps the side of the map."""
    return GroupNorm(groups, wide), nn.SiLU(), nn.Conv2d(wide, width, side, padding=side // 2)


class Pyramid(nn.Module):
    """Encoder, quantizer, decoder; pixels are 0 ... 1 on both sides.

    The VQGAN's residual blocks (Esser et al. 2021) without attention. Squares of pixels become channels first, widths
    grow downwards, and the decoder is the encoder's mirror, with sub-pixel convolutions (Shi et al. 2016).
    """

    splits = False
    """Whether a batch may be cut into micro-batches: some quantizers look at a batch as a whole."""

    @staticmethod
    def inputs(config: PyramidConfig, rows: int) -> tuple[Tensor, float]:
        """What training calls it with, all zero."""
        return torch.zeros(rows, config.channels, config.pixels, config.pixels), 1.0

    def __init__(self, config: PyramidConfig):
        super().__init__()
        c = self.config = config
        self.quantize = quantizer(c.quantizer)
        self.encoder, self.decoder = self._encoder(c), self._decoder(c)
        self.reconstruction = RECONSTRUCTION[c.reconstruction]

    def _encoder(self, c: PyramidConfig) -> nn.Sequential:
        first, last, squares = c.widths[0], c.widths[-1], c.channels * c.patch**2
        layers: list[nn.Module] = [nn.PixelUnshuffle(c.patch), nn.Conv2d(squares, first, 3, padding=1)]
        layers += [Block(first, c.groups) for _ in range(c.encoder_blocks)]
        for wide, width in pairwise(c.widths):
            layers.append(nn.Conv2d(wide, width, 3, stride=2, padding=1))
            layers += [Block(width, c.groups) for _ in range(c.encoder_blocks)]
        return nn.Sequential(*layers, *convolution(last, self.quantize.width_in, c.groups, side=1))

    def _decoder(self, c: PyramidConfig) -> nn.Sequential:
        first, last, squares = c.widths[0], c.widths[-1], c.channels * c.patch**2
        layers: list[nn.Module] = [nn.Conv2d(self.quantize.width_out, last, 3, padding=1)]
        layers += [Block(last, c.groups) for _ in range(c.decoder_blocks)]
        for wide, width in pairwise(reversed(c.widths)):
            layers += [nn.Conv2d(wide, 4 * width, 1), nn.PixelShuffle(2)]
            layers += [Block(width, c.groups) for _ in range(c.decoder_blocks)]
        return nn.Sequential(*layers, *convolution(first, squares, c.groups), nn.PixelShuffle(c.patch))

    def forward(self, pixels: Float[Tensor, "B C S S"], temperature: float, settled: bool = False) -> PyramidLoss:
        """The reconstruction, through codes with the quantizer's noise, and its loss in pixels. Where the codes are
        `settled`, no gradient reaches what makes them."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not settled):
            made = self.quantize(self.encoder(2 * pixels - 1), temperature)
        again = self._pixels(made.vectors)
        wrong = self.reconstruction(again, pixels)
        return PyramidLoss(self.config.pixel_weight * wrong + made.loss, again, wrong, made.loss, made.usage)

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "B C S S"]) -> Int[Tensor, "B N"]:
        """The code at each place, in reading order; no noise."""
        return self.quantize.codes(self.encoder(2 * pixels - 1))

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B C S S"]:
        """Pixels 0 ... 1."""
        side = self.config.grid
        return self._pixels(self.quantize.vectors(codes).transpose(1, 2).unflatten(2, (side, side))).clamp(0, 1)

    def _pixels(self, vectors: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C S S"]:
        return (self.decoder(vectors).float() + 1) / 2
