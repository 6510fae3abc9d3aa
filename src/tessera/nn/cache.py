"""What earlier rows of a sequence leave behind for later ones: keys and values, and inputs. It knows no weights.

Two indices say where an input stands. `rows` is its index in the sequence, which orders the cache and the causal mask;
`places` is its position in the layout, which angles, learned positions and the token shift follow. In raster order
they are equal; in another order the places are permuted, and the rows still count from 0.
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
    """The ways in which a kind of attention reads keys; a memory takes the one that fits how its rows stand."""

    mask: Tensor
    """Bool[L, L], what the row of a query may see; nothing that an encoder asks for."""

    def whole(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...
    def one(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor) -> Tensor: ...
    def masked(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor: ...


@runtime_checkable
class Memory(Protocol):
    """What one branch remembers of earlier rows, and how it looks at them."""

    @property
    def places(self) -> Index: ...
    def attend(self, sight: Sight, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...
    def recall(self, x: Tensor, sources: Tensor, spans: Sequence[tuple[int, int]]) -> list[Tensor]: ...


class Nothing:
    """The memory of a whole sequence seen at once: there is nothing before it. The places are those of raster order,
    unless others are given; the token shift knows raster order alone."""

    def __init__(self, length: int, places: Tensor | None = None):
        self.rows: Index = slice(0, length)
        self.places: Index = self.rows if places is None else places
        self.raster = places is None  # remembered, because a compiler does not keep which slice is which

    def __getitem__(self, slot: int) -> Memory:
        return self

    def attend(self, sight: Sight, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sight.whole(q, k, v)

    def recall(self, x: Tensor, sources: Tensor, spans: Sequence[tuple[int, int]]) -> list[Tensor]:
        """For each span of channels, the inputs at its `sources` [spans, T]; source -1 is zero."""
        assert self.raster, "the token shift needs raster order"
        seen = F.pad(x, (0, 0, 0, 1))
        sources = sources % seen.shape[1]
        return [seen[..., a:b].index_select(1, sources[i]) for i, (a, b) in enumerate(spans)]


class Readable(Nothing):
    """The memory of an encoder, which reads a whole sequence at once: the mask [B, T] says which positions count."""

    def __init__(self, mask: Tensor):
        super().__init__(mask.shape[1])
        self.mask = mask[:, None, None]  # [B, 1, 1, T]

    def attend(self, sight: Sight, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sight.masked(q, k, v, self.mask)


@runtime_checkable
class Stand(Protocol):
    """Where the inputs of a step stand in a cache."""

    rows: Tensor
    places: Tensor

    def write(self, kept: Tensor, fresh: Tensor, index: Tensor, dim: int) -> None: ...
    def read(self, kept: Tensor, index: Tensor) -> Tensor: ...
    def seen(self, kept: Tensor) -> Tensor: ...
    def attend(self, sight: Sight, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


class Together:
    """Every row of the batch stands at the same `rows` [T] of the sequence: those up to the limit may be read.

    sequence  0 1 2 3 4 5 6
    batch     . . . x          T = 1
              . . . x          limit 4
    """

    def __init__(self, rows: Tensor, places: Tensor, limit: int):
        self.rows, self.places, self.limit = rows, places, limit

    def write(self, kept: Tensor, fresh: Tensor, index: Tensor, dim: int) -> None:
        kept.index_copy_(dim, index, fresh.to(kept.dtype))

    def read(self, kept: Tensor, index: Tensor) -> Tensor:
        return kept[:, index]

    def seen(self, kept: Tensor) -> Tensor:
        return kept[:, :, : self.limit]

    def attend(self, sight: Sight, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if len(self.rows) == 1:
            return sight.one(q, k, v, self.rows)
        return sight.masked(q, k, v, sight.mask[self.rows, : k.shape[2]])


class Apart:
    """Each row of the batch stands at `rows` [B, T] of its own, as where requests come and go in one batch.

    sequence  0 1 2 3 4 5 6
    batch     . . . x          T = 1; shapes never change, and what a row
              . . . . . x      has not reached is masked
    """

    def __init__(self, rows: Tensor, places: Tensor):
        self.rows, self.places = rows, places
        self.batch = torch.arange(len(rows), device=rows.device)[:, None]

    def write(self, kept: Tensor, fresh: Tensor, index: Tensor, dim: int) -> None:
        kept.movedim(dim, 1)[self.batch, index] = fresh.movedim(dim, 1).to(kept.dtype)

    def read(self, kept: Tensor, index: Tensor) -> Tensor:
        return kept[self.batch, index]

    def seen(self, kept: Tensor) -> Tensor:
        return kept

    def attend(self, sight: Sight, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sight.masked(q, k, v, sight.mask[self.rows][:, None])  # [B, 1, T, L]


class Slot:
    """One branch's memory: keys and values [B, H, L, E] by row, inputs [B, L + 1, D] by place for the token shift,
    whose last one, -1, stays zero."""

    def __init__(self, keys: Tensor, values: Tensor, history: Tensor):
        self.keys, self.values, self.history = keys, values, history
        self.stand: Stand  # set by Past for each step

    @property
    def kept(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.keys, self.values, self.history

    @property
    def places(self) -> Index:
        return self.stand.places

    def attend(self, sight: Sight, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store keys and values at their rows, then see all that may be read; later rows are zero or masked."""
        stand = self.stand
        stand.write(self.keys, k, stand.rows, 2)
        stand.write(self.values, v, stand.rows, 2)
        return stand.attend(sight, q, stand.seen(self.keys), stand.seen(self.values))

    def recall(self, x: Tensor, sources: Tensor, spans: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Store [B, T, D] at its places; return what Nothing would."""
        self.stand.write(self.history, x, self.stand.places, 1)
        return [self.stand.read(self.history[..., a:b], sources[i]).to(x.dtype) for i, (a, b) in enumerate(spans)]


class Past:
    """What earlier rows left behind, one Slot per branch.

    The batch moves through the sequence together (`advance`, `rewind`), or each row of it on its own (`stand_at`).
    Where steps are compiled, `fix` keeps every shape the same; else nobody reads beyond what was seen.
    """

    def __init__(self, slots: Sequence[Slot], length: int, device: torch.device):
        self.slots, self.seen, self.fixed = slots, 0, False
        self.every = self.rows = self.places = torch.arange(length, device=device)

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
        self._take(Together(rows, rows if places is None else places, limit))

    def stand_at(self, rows: Int[Tensor, "B T"], places: Int[Tensor, "B T"] | None = None) -> None:
        """Each row of the batch at rows of its own; whoever asks counts them, so that the device is never waited for.
        Rows beyond the layout are its mistake."""
        self._take(Apart(rows, rows if places is None else places))

    def _take(self, stand: Stand) -> None:
        self.rows, self.places = stand.rows, stand.places
        for slot in self.slots:
            slot.stand = stand

    def spread(self, rows: Int[Tensor, " B"]) -> None:
        """Row i of the batch becomes what row `rows[i]` was."""
        for slot in self.slots:
            slot.keys, slot.values, slot.history = (kept.index_select(0, rows) for kept in slot.kept)

    def put(self, row: int, other: Past) -> None:
        """Row `row` of the batch becomes the only one of `other`: whoever was there is gone, and no address changes."""
        for own, new in zip(self.slots, other.slots, strict=True):
            for kept, fresh in zip(own.kept, new.kept, strict=True):
                assert len(fresh) == 1, "one row is put at a time"
                kept[row : row + 1].copy_(fresh)

    def fix(self) -> None:
        """Every shape and every address stays as it is, which compilers and CUDA graphs ask for."""
        self.fixed = True
        for slot in self.slots:
            for kept in slot.kept:
                torch._dynamo.mark_static_address(kept, guard=False)
