"""Where positions lie and which of them may see each other. It does not know weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Predicate = Callable[[Tensor, Tensor], Tensor]
"""(query positions, key positions), broadcast -> may the query see the key. The one definition behind every mask."""


@dataclass(frozen=True)
class Layout:
    """Text first, then a square grid of codes in reading order.

    `text` counts <bos> and the text tokens: positions 0 ... text - 1. Code (r, c) stands at text + r * grid + c.
    """

    text: int
    grid: int

    @property
    def codes(self) -> int:
        return self.grid * self.grid

    @property
    def length(self) -> int:
        return self.text + self.codes

    def row_col(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column of code positions; meaningless for text positions."""
        code = position - self.text
        side = max(self.grid, 1)
        return code.div(side, rounding_mode="floor"), code % side


Near = Callable[[Tensor, Tensor], Tensor]
"""(rows up, columns left) from the query's code to the key's -> may it be seen."""

NEAR: dict[str, Near] = {
    "axial_row": lambda up, left: up == 0,
    "axial_col": lambda up, left: left == 0,
    # The 5 x 5 window whose bottom right corner is the query; DALLE-pytorch 1.5 and later.
    "conv_like": lambda up, left: (up >= 0) & (up < 5) & (left >= 0) & (left < 5),
    # The window centred on the query; DALLE-pytorch before 1.5.
    "conv_centred": lambda up, left: (up.abs() <= 2) & (left.abs() <= 2),
}


def pattern(name: str, layout: Layout) -> Predicate:
    """The predicate called `name`. All but "all", which is for encoders, are causal and show every code the text."""
    if name == "all":
        return lambda q, k: (q >= 0) & (k >= 0)
    if name == "full":
        return lambda q, k: k <= q
    if name == "sparse":
        return blocks(sparse_table(layout), SPARSE_BLOCK)
    near = NEAR[name]

    def allowed(q: Tensor, k: Tensor) -> Tensor:
        (row_q, col_q), (row_k, col_k) = layout.row_col(q), layout.row_col(k)
        return (k <= q) & ((k < layout.text) | near(row_q - row_k, col_q - col_k))

    return allowed


SPARSE_BLOCK = 16


def sparse_table(layout: Layout) -> Tensor:
    """Bool[blocks, blocks] over blocks of 16 positions: four local ones, all of the text, and a fixed random quarter.

    The shape of DeepSpeed's VariableSparsityConfig as DALL-E 1 replications used it; which quarter is ours.
    """
    count = -(-layout.length // SPARSE_BLOCK)
    q, k = torch.arange(count)[:, None], torch.arange(count)[None, :]
    chance = torch.rand(count, count, generator=torch.Generator().manual_seed(0))
    return (q // 4 == k // 4) | (k < -(-layout.text // SPARSE_BLOCK)) | (chance < 0.25)


def blocks(table: Tensor, size: int) -> Predicate:
    """A causal predicate from a table of blocks of `size` positions."""
    return lambda q, k: (k <= q) & table.to(q.device)[q // size, k // size]


def dense(allowed: Predicate, length: int) -> Tensor:
    """Bool[length, length]: row q, column k, for scaled_dot_product_attention."""
    position = torch.arange(length)
    return allowed(position[:, None], position[None, :])


@dataclass(frozen=True)
class Band:
    """Which codes a row of codes may see at most: its own row and `up` rows above; or its own column."""

    up: int = 0
    columns: bool = False


BANDS = {"axial_row": Band(), "axial_col": Band(columns=True), "conv_like": Band(up=4), "conv_centred": Band(up=2)}


def band_mask(allowed: Predicate, layout: Layout, band: Band) -> Tensor:
    """Bool[grid, grid, text + (up + 1) * grid]: for each code of each row (or column), all of the text and its band."""
    side = torch.arange(layout.grid)
    own, along = side[:, None, None, None], side[None, :, None, None]
    other, across = side[0] + own + torch.arange(-band.up, 1)[:, None], side.expand(1, 1, band.up + 1, -1)
    at = lambda line, place: layout.text + (place * layout.grid + line if band.columns else line * layout.grid + place)
    near = (allowed(at(own, along), at(other, across)) & (other >= 0)).flatten(2)
    return torch.cat((torch.ones(layout.grid, layout.grid, layout.text, dtype=torch.bool), near), 2)


def listed(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Bool[L, L] as the positions that each row sees, int32[L, M], and which of these M places are filled."""
    counts = mask.sum(1)
    row, position = mask.nonzero(as_tuple=True)
    place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    positions = torch.zeros(len(mask), int(counts.max()), dtype=torch.int32)
    positions[row, place] = position.int()
    return positions, torch.arange(positions.shape[1]) < counts[:, None]
