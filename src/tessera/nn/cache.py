"""What earlier positions leave behind for later ones: keys and values, and inputs. It knows no attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

Where = slice | Tensor
"""The absolute positions of the inputs, as an index into tables that have a row per position."""


@runtime_checkable
class Memory(Protocol):
    """What one branch remembers of earlier positions."""

    @property
    def where(self) -> Where: ...
    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]: ...
    def recall(self, x: Tensor, rows: Tensor, spans: Sequence[tuple[int, int]]) -> list[Tensor]: ...


class Nothing:
    """The memory of a whole sequence seen at once: there is nothing before it."""

    def __init__(self, length: int):
        self.where: Where = slice(0, length)

    def __getitem__(self, slot: int) -> Memory:
        return self

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return keys, values

    def recall(self, x: Tensor, rows: Tensor, spans: Sequence[tuple[int, int]]) -> list[Tensor]:
        """For each span of channels, the inputs at its `rows` [spans, t]; row -1 is zero."""
        seen = F.pad(x, (0, 0, 0, 1))
        rows = rows % seen.shape[1]
        return [seen[..., a:b].index_select(1, rows[i]) for i, (a, b) in enumerate(spans)]


class Readable(Nothing):
    """The memory of an encoder, which reads a whole sequence at once: `where` says which positions count, [B, T]."""

    def __init__(self, mask: Tensor):
        self.where = mask


class Slot:
    """One branch's memory: keys and values for attention, inputs for the token shift, each of the full length."""

    def __init__(self, keys: Tensor, values: Tensor, history: Tensor):
        self.keys, self.values, self.history = keys, values, history
        self.where = torch.arange(0)  # set by Past.advance, with the number of positions that may count
        self.limit = keys.shape[2]

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store [B, H, t, E] at `where`; return all up to the limit, later positions still zero."""
        self.keys.index_copy_(2, self.where, keys.to(self.keys.dtype))
        self.values.index_copy_(2, self.where, values.to(self.values.dtype))
        return self.keys[:, :, : self.limit], self.values[:, :, : self.limit]

    def recall(self, x: Tensor, rows: Tensor, spans: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Store [B, t, D] at `where`; return what Nothing would. The history's last row, -1, stays zero."""
        self.history.index_copy_(1, self.where, x.to(self.history.dtype))
        return [self.history[:, rows[i], a:b].to(x.dtype) for i, (a, b) in enumerate(spans)]


class Past:
    """What earlier positions left behind, one Slot per branch.

    Where steps are compiled, `fix` keeps every shape the same; else nobody reads beyond what was seen.
    """

    def __init__(self, slots: Sequence[Slot], length: int, device: torch.device):
        self.slots, self.seen, self.fixed = slots, 0, False
        self.positions = self.where = torch.arange(length, device=device)

    def __getitem__(self, slot: int) -> Memory:
        return self.slots[slot]

    def spread(self, rows: Int[Tensor, "B"]) -> None:
        """Row i becomes what row `rows[i]` was."""
        for slot in self.slots:
            slot.keys, slot.values, slot.history = (
                kept.index_select(0, rows) for kept in (slot.keys, slot.values, slot.history)
            )

    def fix(self) -> None:
        """Every shape and every address stays as it is, which compilers and CUDA graphs ask for."""
        self.fixed = True
        for slot in self.slots:
            for kept in (slot.keys, slot.values, slot.history):
                torch._dynamo.mark_static_address(kept, guard=False)

    def advance(self, count: int) -> Tensor:
        """Make room for the next `count` positions and return them."""
        return self.go_to(self.seen, count)

    def go_to(self, seen: int, count: int) -> Tensor:
        """The same after the first `seen` positions; what is known of later ones will be written over."""
        self.seen = seen
        self.where = self.positions[self.seen : self.seen + count]
        assert len(self.where) == count, "a past holds no more than its layout"
        self.seen += count
        for slot in self.slots:
            slot.where, slot.limit = self.where, len(self.positions) if self.fixed else self.seen
        return self.where
