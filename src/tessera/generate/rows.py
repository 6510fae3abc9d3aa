"""Rows of a batch that stand at places of their own and come and go, as a server's requests do. It does not know
models."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from tessera.nn.attention import Visibility, attention
from tessera.nn.cache import Past, Together


class Apart(Together):
    """Each row of the batch stands at `rows` [B, T] of its own.

    sequence  0 1 2 3 4 5 6
    batch     . . . x          T = 1; shapes and addresses never change,
              . . . . . x      and what a row has not reached is masked
    """

    def __init__(self, rows: Tensor, places: Tensor, limit: int):
        super().__init__(rows, places, limit)
        self.batch = torch.arange(len(rows), device=rows.device)[:, None]

    def store(self, kept: Tensor, fresh: Tensor, index: Tensor, dim: int) -> None:
        kept.movedim(dim, 1)[self.batch, index] = fresh.movedim(dim, 1).to(kept.dtype)

    def fetch(self, kept: Tensor, index: Tensor) -> Tensor:
        return kept[self.batch, index]

    def attend(self, sight: Visibility, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return apart(sight, q, keys, values, self.rows)


def apart(sight: Visibility, q: Tensor, k: Tensor, v: Tensor, rows: Int[Tensor, "B T"]) -> Tensor:
    """Queries at `rows` of the sequence; every key of the layout is there."""
    return (listed if sight.band and q.shape[2] == 1 else masked)(sight, q, k, v, rows)


def masked(sight: Visibility, q: Tensor, k: Tensor, v: Tensor, rows: Int[Tensor, "B T"]) -> Tensor:
    """Every key of the layout is there, and the mask says which of them count."""
    return attention(q, k, v, sight.mask[rows][:, None])  # [B, 1, T, L]


def listed(sight: Visibility, q: Tensor, k: Tensor, v: Tensor, rows: Int[Tensor, "B 1"]) -> Tensor:
    """One query of each row of the batch and the few keys that it may see."""
    keys = sight.seen[rows].long().unsqueeze(-1)  # [B, 1, M, 1]
    k, v = k.take_along_dim(keys, 2), v.take_along_dim(keys, 2)
    return attention(q, k, v, sight.seen_mask[rows][:, None])


def stand_at(past: Past, rows: Int[Tensor, "B T"], places: Int[Tensor, "B T"] | None = None) -> None:
    """Each row of the batch at rows of its own, which the caller counts, so that the device is never waited for. The
    caller must not go beyond the layout."""
    past.move(Apart(rows, rows if places is None else places, len(past.every)), places is None)


def put(past: Past, row: int, other: Past) -> None:
    """Row `row` of the batch becomes the only row of `other`, in place, so that addresses stay."""
    for own, new in zip(past.slots, other.slots, strict=True):
        for kept, fresh in zip(own.kept, new.kept, strict=True):
            assert len(fresh) == 1, "one row is put at a time"
            kept[row : row + 1].copy_(fresh)
