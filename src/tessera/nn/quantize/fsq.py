"""Finite scalar quantization: rounding, without a codebook. It knows no pictures."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import DVAEConfig
from tessera.nn.quantize.protocol import Quantized


class FiniteScalar(nn.Module):
    """Each channel is rounded to one of a few levels; a code is the combination (FSQ, Mentzer et al. 2023).

    It has no codebook to learn, which suits small data and short training; most codes can still be left unused.
    """

    levels: Tensor
    offset: Tensor
    reach: Tensor
    bases: Tensor

    def __init__(self, config: DVAEConfig):
        super().__init__()
        self.width_in = self.width_out = len(config.levels)
        levels = torch.tensor(config.levels)[:, None, None]
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        half = (levels - 1) * 1.001 / 2
        bases = torch.tensor([math.prod(config.levels[:i]) for i in range(len(config.levels))])[:, None, None]
        for name, value in (("levels", levels), ("offset", offset), ("reach", half), ("bases", bases)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, z: Float[Tensor, "B D h w"], temperature: float) -> Quantized:
        bounded = self._bound(z)
        rounded = bounded + (bounded.round() - bounded).detach()
        return Quantized(rounded / (self.levels // 2), z.new_zeros(()))

    def _bound(self, z: Tensor) -> Tensor:
        return (z.float() + (self.offset / self.reach).atanh()).tanh() * self.reach - self.offset

    def codes(self, z: Float[Tensor, "B D h w"]) -> Int[Tensor, "B h w"]:
        digits = self._bound(z).round().long() + self.levels // 2
        return (digits * self.bases).sum(1)

    def vectors(self, codes: Int[Tensor, "B h w"]) -> Float[Tensor, "B D h w"]:
        digits = codes[:, None] // self.bases % self.levels
        return (digits - self.levels // 2) / (self.levels // 2)
