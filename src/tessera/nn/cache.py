"""What earlier rows of a sequence leave behind for later ones: keys and values, and inputs. It does not know weights.

Two indices say where an input stands. `rows` is its index in the sequence, which orders the cache and the causal mask;
`places` is its position in the layout, which angles, learned positions and the token shift follow. In raster order
they are equal. In another order the places are permuted, and the rows still count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

Index = slice | Tensor
"""Rows or places of the inputs, [T] or, where each row of the batch has its own, [B, T]: `table[index]` finds theirs
in a table with an entry for each. A slice is a whole sequence, read without a copy."""


@runtime_checkable
class Sight(Protocol):
    """The ways in which a pattern reads keys; a memory takes the one that fits how its rows stand."""

    def whole(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...
    def together(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor) -> Tensor: ...


class Nothing:
    """The memory of a whole sequence seen at once: there is nothing before it. The places are those of raster order,
    unless others are given."""

    def __init__(self, length: int, places: Tensor | None = None):
        self.places: Index = slice(0, length) if places is None else places
        self.raster = places is None  # remembered, because a compiler does not keep which slice is which

    def __getitem__(self, slot: int) -> Memory:
        return self

    def attend(self, sight: Sight, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sight.whole(q, k, v)

    def recall(self, x: Tensor, sources: Tensor, spans: Sequence[tuple[int, int]]) -> list[Tensor]:
        """For each span of channels, the inputs at its `sources` [spans, T]; source -1 is zero."""
        seen = F.pad(x, (0, 0, 0, 1))
        sources = sources % seen.shape[1]
        return [seen[..., a:b].index_select(1, sources[i]) for i, (a, b) in enumerate(spans)]


class Together:
    """Every row of the batch stands at the same `rows` [T] of the sequence. Keys up to the limit may be read.

    sequence  0 1 2 3 4 5 6
    batch     . . . x          T = 1
              . . . x          limit 4
    """

    def __init__(self, rows: Tensor, places: Tensor, limit: int):
        self.rows, self.places, self.limit = rows, places, limit

    def store(self, kept: Tensor, fresh: Tensor, index: Tensor, dim: int) -> None:
        kept.index_copy_(dim, index, fresh.to(kept.dtype))

    def fetch(self, kept: Tensor, index: Tensor) -> Tensor:
        return kept[:, index]

    def attend(self, sight: Sight, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return sight.together(q, keys[:, :, : self.limit], values[:, :, : self.limit], self.rows)


class Slot:
    """One branch's memory: keys and values [B, H, L, E] by row, inputs [B, L + 1, D] by place for the token shift,
    whose last one, -1, stays zero."""

    def __init__(self, keys: Tensor, values: Tensor, history: Tensor):
        self.keys, self.values, self.history = keys, values, history
        self.stand: Together  # set by Past for each step

    @property
    def kept(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.keys, self.values, self.history

    @property
    def places(self) -> Index:
        return self.stand.places

    def attend(self, sight: Sight, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store keys and values at their rows, then look at those that may be read; later rows are zero or masked."""
        stand = self.stand
        stand.store(self.keys, k, stand.rows, 2)
        stand.store(self.values, v, stand.rows, 2)
        return stand.attend(sight, q, self.keys, self.values)

    def recall(self, x: Tensor, sources: Tensor, spans: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Store [B, T, D] at its places; return what Nothing would."""
        self.stand.store(self.history, x, self.stand.places, 1)
        return [self.stand.fetch(self.history[..., a:b], sources[i]).to(x.dtype) for i, (a, b) in enumerate(spans)]


class Past:
    """What earlier rows left behind, one Slot per branch.

    The batch moves through the sequence together (`advance`, `rewind`); `generate/rows.py` lets each row of it stand
    at rows of its own.
    Where steps are compiled, `fix` keeps every shape the same; else only the keys seen so far are read.
    """

    def __init__(self, slots: Sequence[Slot], length: int, device: torch.device):
        self.slots, self.seen, self.fixed, self.raster = slots, 0, False, True
        self.every = self.places = torch.arange(length, device=device)

    def __getitem__(self, slot: int) -> Memory:
        return self.slots[slot]

    def advance(self, count: int, places: Int[Tensor, "*B T"] | None = None) -> None:
        """Make room for the next `count` rows, whose places are the rows themselves unless others are given."""
        self.rewind(self.seen, count, places)

    def rewind(self, seen: int, count: int, places: Int[Tensor, "*B T"] | None = None) -> None:
        """The same after the first `seen` rows; what is known of later ones will be written over."""
        self.seen = seen + count
        rows = self.every[seen : self.seen]
        assert len(rows) == count, "a past holds no more than its layout"
        limit = len(self.every) if self.fixed else self.seen
        self.move(Together(rows, rows if places is None else places, limit), places is None)

    def move(self, stand: Together, raster: bool) -> None:
        """Where the rows that follow stand, and whether that is raster order."""
        self.places, self.raster = stand.places, raster
        for slot in self.slots:
            slot.stand = stand

    def spread(self, rows: Int[Tensor, " B"]) -> None:
        """Row i of the batch becomes what row `rows[i]` was."""
        for slot in self.slots:
            slot.keys, slot.values, slot.history = (kept.index_select(0, rows) for kept in slot.kept)

    def fix(self) -> None:
        """Every shape and every address stays as it is, which compilers and CUDA graphs ask for."""
        self.fixed = True
        for slot in self.slots:
            for kept in slot.kept:
                torch._dynamo.mark_static_address(kept, guard=False)


Memory = Nothing | Slot
"""What one branch remembers of earlier rows, and how it looks at them."""
