"""What a prior reads in training in place of some of the codes, while it must predict the true ones. It knows no
pictures."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor, nn

from tessera.config import NoiseConfig
from tessera.tokens.image import ImageTokenizer
from tessera.train.objectives.vectors import neighbours, vectors

NEAREST = 6
"""Neighbours of a code, of which one is taken."""


class Replaced(nn.Module):
    """In training, a share of codes is replaced by others, each place for itself; what learns reads its own kind of
    mistakes (noisy context, as in reAR, He et al. 2025)."""

    def __init__(self, share: float, other: nn.Module):
        super().__init__()
        self.share, self.other = share, other

    def forward(self, codes: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
        if not self.training:
            return codes
        return torch.where(torch.rand(codes.shape, device=codes.device) < self.share, self.other(codes), codes)


class AnyOther(nn.Module):
    """Any other code, all equally likely."""

    def __init__(self, image: ImageTokenizer):
        super().__init__()
        self.vocab = image.vocab

    def forward(self, codes: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
        return (codes + torch.randint_like(codes, 1, self.vocab)) % self.vocab


class Near(nn.Module):
    """One of the nearest codes, by their vectors."""

    table: Tensor

    def __init__(self, image: ImageTokenizer):
        super().__init__()
        self.register_buffer("table", neighbours(vectors(image), NEAREST), persistent=False)

    def forward(self, codes: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
        return self.table[codes, torch.randint_like(codes, self.table.shape[1])]


OTHERS = {"any": AnyOther, "near": Near}
"""The names are those of `noise.by`."""


def read_as(config: NoiseConfig, image: ImageTokenizer) -> nn.Module:
    """Codes -> what is read in their place."""
    return Replaced(config.codes, OTHERS[config.by](image)) if config.codes else nn.Identity()
