"""The discrete VAE: pixels <-> a grid of codes. It knows no text and no files."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import DVAEConfig
from tessera.models.quantizers import quantizer

RECONSTRUCTION = {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}


class ResBlock(nn.Module):
    """3 x 3, 3 x 3, 1 x 1 with ReLU between, added to the input."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + x


def down(wide: int, width: int) -> nn.Module:
    """Half the side."""
    return nn.Sequential(nn.Conv2d(wide, width, 4, stride=2, padding=1), nn.ReLU())


def up(wide: int, width: int) -> nn.Module:
    """Twice the side."""
    return nn.Sequential(nn.ConvTranspose2d(wide, width, 4, stride=2, padding=1), nn.ReLU())


class DVAELoss(NamedTuple):
    """total = reconstruction + quantizer."""

    total: Tensor
    reconstruction: Tensor
    quantizer: Tensor
    """What the quantizer itself asks to be minimised, weighted."""
    usage: Tensor
    """How many different codes the batch has."""


class DiscreteVAE(nn.Module):
    """Encoder, quantizer, decoder back to pixels (Ramesh et al. 2021, section 2.1).

    Pixels are 0 ... 1 on both sides. Encoder and decoder are DALLE-pytorch's layer by layer, so that its weights fit.
    """

    mean: Tensor
    std: Tensor

    splits = False
    """Whether a batch may be cut into micro-batches: the noise and the divergence here are those of a whole batch."""

    @staticmethod
    def inputs(config: DVAEConfig, rows: int) -> tuple[Tensor, float]:
        """What training calls it with, all zero."""
        return torch.zeros(rows, config.channels, config.pixels, config.pixels), 1.0

    def __init__(self, config: DVAEConfig):
        super().__init__()
        c = self.config = config
        widths = [c.channels] + [c.hidden] * c.layers
        self.quantize = quantizer(c.quantizer)
        self.encoder = nn.Sequential(
            *(down(a, b) for a, b in pairwise(widths)),
            *(ResBlock(c.hidden) for _ in range(c.resblocks)),
            nn.Conv2d(c.hidden, self.quantize.width_in, 1),
        )
        first = c.hidden if c.resblocks else self.quantize.width_out
        self.decoder = nn.Sequential(
            *([nn.Conv2d(self.quantize.width_out, c.hidden, 1)] if c.resblocks else []),
            *(ResBlock(c.hidden) for _ in range(c.resblocks)),
            *(up(first if i == 0 else c.hidden, c.hidden) for i in range(c.layers)),
            nn.Conv2d(c.hidden, c.channels, 1),
        )
        self.register_buffer("mean", torch.tensor(c.mean[: c.channels])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(c.std[: c.channels])[:, None, None], persistent=False)
        self.reconstruction = RECONSTRUCTION[c.reconstruction]

    def forward(self, pixels: Float[Tensor, "B C S S"], temperature: float) -> DVAELoss:
        """The training loss, Gumbel noise included; the reconstruction is compared in normalised pixels."""
        return self.relaxed(pixels, temperature)[1]

    def relaxed(self, pixels: Float[Tensor, "B C S S"], temperature: float) -> tuple[Tensor, DVAELoss]:
        """The reconstruction in normalised pixels, through relaxed codes, and its loss."""
        x = self.normalised(pixels)
        made = self.quantize(self.encoder(x), temperature)
        again = self.decoder(made.vectors).float()
        reconstruction = self.reconstruction(again, x)
        return again, DVAELoss(reconstruction + made.loss, reconstruction, made.loss, made.usage)

    def normalised(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "B C S S"]) -> Int[Tensor, "B N"]:
        """The code at each place, in reading order; no noise."""
        return self.quantize.codes(self.encoder(self.normalised(pixels)))

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B C S S"]:
        """Pixels 0 ... 1."""
        return (self.decoded(codes) * self.std + self.mean).clamp(0, 1)

    def decoded(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B C S S"]:
        """Normalised pixels."""
        side = self.config.grid
        return self.decoder(self.quantize.vectors(codes).transpose(1, 2).unflatten(2, (side, side)))
