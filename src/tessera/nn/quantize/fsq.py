"""Finite scalar quantization: rounding, without a codebook. It knows no pictures."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import FSQ
from tessera.nn.quantize.protocol import Quantized, used

SLOPES = {"tanh": 1.0, "sigmoid": 0.8}
"""Of the bound's tanh at 0, by the name that settings give it: 2 sigmoid(1.6 x) - 1 is tanh(0.8 x)."""


class FiniteScalar(nn.Module):
    """Each channel is rounded to one of a few levels; a code is the combination (FSQ, Mentzer et al. 2023).

    It has no codebook to learn, which suits small data and short training; most codes can still be left unused.
    """

    levels: Tensor
    offset: Tensor
    reach: Tensor
    bases: Tensor

    def __init__(self, config: FSQ):
        super().__init__()
        self.width_in = self.width_out = len(config.levels)
        self.vocab, self.slope = config.vocab, SLOPES[config.bound]
        levels = torch.tensor(config.levels)[:, None, None]
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        half = (levels - 1) * 1.001 / 2
        bases = torch.tensor([math.prod(config.levels[:i]) for i in range(len(config.levels))])[:, None, None]
        for name, value in (("levels", levels), ("offset", offset), ("reach", half), ("bases", bases)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, z: Float[Tensor, "B D h w"], temperature: float) -> Quantized:
        bounded = self._bound(z)
        whole = bounded.round()
        rounded = bounded + (whole - bounded).detach()
        codes = self._codes(whole.detach())
        nothing = torch.zeros((), device=z.device)
        return Quantized(rounded / (self.levels // 2), codes, nothing, used(codes, self.vocab))

    def codes(self, z: Float[Tensor, "B D h w"]) -> Int[Tensor, "B N"]:
        return self._codes(self._bound(z).round())

    def vectors(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        levels, bases = self.levels[:, 0], self.bases[:, 0]  # [D, 1]
        digits = codes[:, None] // bases % levels  # [B, D, N]
        return ((digits - levels // 2) / (levels // 2)).transpose(1, 2)

    def _bound(self, z: Tensor) -> Tensor:
        return (self.slope * z.float() + (self.offset / self.reach).atanh()).tanh() * self.reach - self.offset

    def _codes(self, whole: Float[Tensor, "B D h w"]) -> Int[Tensor, "B N"]:
        return ((whole.long() + self.levels // 2) * self.bases).sum(1).flatten(1)
