"""In which order places are drawn, and how many in each step. It does not know models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from tessera.config import SampleConfig


def sequence(sampling: SampleConfig, seeds: Sequence[int], grid: int) -> Int[Tensor, "B N"]:
    """All places of each picture in the order that is asked for."""
    name = sampling.order if sampling.order != "auto" else "halton" if sampling.steps else "raster"
    return torch.stack([SEQUENCES[name](seed, grid) for seed in seeds])


def totals(count: int, steps: int) -> list[int]:
    """How many of `count` codes are drawn after each step: few at first, then more, by a cosine (MaskGIT, Chang et al.
    2022); at least one in each. Zero steps are one for each code."""
    steps = min(steps or count, count)
    found = [0]
    for step in range(1, steps + 1):
        cosine = math.floor(count * (1 - math.cos(math.pi / 2 * step / steps)))
        found.append(count if step == steps else max(found[-1] + 1, min(cosine, count - (steps - step))))
    return found[1:]


def halton(grid: int) -> Int[Tensor, " N"]:
    """Places by the Halton sequence in bases 2 and 3, each where it comes first: neighbours in the sequence lie far
    from each other in the picture (Besnier et al. 2025)."""
    found: dict[int, None] = {}
    index = 0
    while len(found) < grid * grid:
        index += 1
        row, col = (int(radical_inverse(index, base) * grid) for base in (2, 3))
        found.setdefault(row * grid + col)
    return torch.tensor(list(found))


def radical_inverse(index: int, base: int) -> float:
    """The digits of a number, mirrored behind the point: 6 = 110 in base 2 becomes 0.011."""
    found, weight = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        weight /= base
        found += digit * weight
    return found


def chance(seed: int) -> torch.Generator:
    """Of a picture's own order, which is not the noise that its codes are drawn with."""
    return torch.Generator().manual_seed((seed * 1_000_003 + 7) % 2**63)


SEQUENCES: dict[str, Callable[[int, int], Tensor]] = {
    "raster": lambda seed, grid: torch.arange(grid * grid),
    "halton": lambda seed, grid: halton(grid),
    "random": lambda seed, grid: torch.rand(grid * grid, generator=chance(seed)).argsort(),
    "confidence": lambda seed, grid: torch.arange(grid * grid),
}
"""(seed, side of the grid) -> places; by `order`. The surest of all have no sequence but their places."""
