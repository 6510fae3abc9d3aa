"""Attention over a fixed layout, dense or by bands of keys. It does not know vocabularies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tessera.config import TransformerConfig
from tessera.nn.cache import Memory
from tessera.nn.geometry import BANDS, Layout, band_mask, dense, listed, pattern
from tessera.nn.rotary import Turn


class HeadNorm(nn.RMSNorm):
    """RMSNorm over a head's channels, in the type of its input."""

    def forward(self, u: Float[Tensor, "B H T E"]) -> Float[Tensor, "B H T E"]:
        return F.rms_norm(u, self.weight.shape, self.weight.to(u.dtype))


FEW_CODES = 1024
"""Below so many codes a dense mask is as fast as leaving keys out; see `docs/LOG.md`."""


class Visibility(nn.Module):
    """Attention restricted to a pattern: softmax(q k / sqrt(E)) v over the keys each query may see.

    The dense mask is the meaning of a pattern. Patterns that see few codes have two ways to read less: bands of rows
    or columns for a whole sequence, and for one query the list of keys that it may see.
    """

    mask: Tensor
    band_mask: Tensor
    seen: Tensor
    seen_mask: Tensor

    def __init__(self, name: str, layout: Layout):
        super().__init__()
        self.name, self.layout, self.band = name, layout, BANDS.get(name)
        allowed = pattern(name, layout)
        with torch.device("cpu"):  # a meta tensor cannot say how long the lists are
            tables = {"mask": dense(allowed, layout.length)}
            if self.band:
                tables["band_mask"] = band_mask(allowed, layout, self.band)
                tables["seen"], tables["seen_mask"] = listed(tables["mask"])
        for table, value in tables.items():
            self.register_buffer(table, value.to(torch.get_default_device()), persistent=False)
        # A plain causal mask need not be read from memory: a third faster on CPU.
        banded = self.band and layout.codes >= FEW_CODES
        self.whole = self._causal if name == "full" else self._banded if banded else self._dense
        self.one = self._last if name == "full" else self._listed if self.band else self._rows

    def together(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor) -> Tensor:
        """Queries at `rows` [T] of the sequence. Keys end at the last of these, or every key of the layout is there."""
        return (self.one if q.shape[2] == 1 else self._rows)(q, k, v, rows)

    def _rows(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor) -> Tensor:
        return attention(q, k, v, self.mask[rows, : k.shape[2]])

    def _last(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor) -> Tensor:
        """One query that sees all before it: where the keys end at it, it needs no mask."""
        return attention(q, k, v, None) if k.shape[2] < self.layout.length else self._rows(q, k, v, rows)

    def _listed(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor) -> Tensor:
        """One query and the few keys that it may see."""
        keys = self.seen.index_select(0, rows)[0]
        k, v = k.index_select(2, keys), v.index_select(2, keys)
        return attention(q, k, v, self.seen_mask[rows])

    def _banded(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Text on its own; then each row (or column) of codes with all of the text and the rows it may see."""
        b, h, t, e = q.shape
        text, grid, codes = self.layout.text, self.layout.grid, t - self.layout.text
        if codes <= 0 or self.band is None:
            return self._dense(q, k, v)
        everything = q, k, v
        q, k, v = (F.pad(u[:, :, text:], (0, 0, 0, self.layout.codes - codes)) for u in everything)
        q, k, v = (u.reshape(b * h, grid, grid, e) for u in (q, k, v))
        if self.band.columns:
            q, k, v = (u.transpose(1, 2) for u in (q, k, v))
        k, v = (
            torch.cat((w[:, :, :text].reshape(b * h, 1, text, e).expand(-1, grid, -1, -1), _above(u, self.band.up)), 2)
            for w, u in zip(everything[1:], (k, v), strict=True)
        )
        y = attention(q, k, v, self.band_mask)
        y = (y.transpose(1, 2) if self.band.columns else y).reshape(b, h, grid * grid, e)
        return torch.cat((self._causal(*(u[:, :, :text] for u in everything)), y[:, :, :codes]), 2)

    def _causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self._dense(q, k, v) if short(q) else F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def _dense(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, self.mask[: q.shape[2], : k.shape[2]])


def short(q: Tensor) -> bool:
    """Whether writing attention out is faster than the fused kernel: in bf16 on a CPU, up to 256 places,
    1.3 to 5 times as fast (docs/LOG.md)."""
    return q.device.type == "cpu" and torch.is_autocast_enabled("cpu") and 1 < q.shape[2] <= 256


def attention(
    q: Float[Tensor, "B H t E"],
    k: Float[Tensor, "B H T E"],
    v: Float[Tensor, "B H T E"],
    mask: Bool[Tensor, "*b t T"] | None,
) -> Float[Tensor, "B H t E"]:
    """softmax(q k / sqrt(E)) v over what the mask lets each query see.

    One query is written out for torch.compile, which makes one loop of it and what stands around it.
    """
    if mask is not None and short(q):
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)).masked_fill(~mask, -torch.inf).softmax(-1) @ v
    if mask is None or not torch.compiler.is_compiling() or q.shape[2] > 1:
        return F.scaled_dot_product_attention(q, k, v, mask)
    scores = (k * q).sum(-1) * q.shape[-1] ** -0.5
    return (scores.masked_fill(~mask[..., 0, :], -torch.inf).softmax(-1)[..., None] * v).sum(2, keepdim=True)


def _above(rows: Float[Tensor, "B G Q E"], up: int) -> Float[Tensor, "B G K E"]:
    """Each row with `up` rows above it, those beyond the border zero."""
    grid = rows.shape[1]
    padded = F.pad(rows, (0, 0, 0, 0, up, 0))
    return torch.cat([padded[:, i : i + grid] for i in range(up + 1)], 2)


class Attention(nn.Module):
    """Multi-head self-attention over a layout."""

    def __init__(self, config: TransformerConfig, sight: Visibility, turn: Turn, turn_values: Turn):
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * inner, bias=False)
        self.norm_q = HeadNorm(config.head_dim) if config.qk_norm else nn.Identity()
        self.norm_k = HeadNorm(config.head_dim) if config.qk_norm else nn.Identity()
        self.out = nn.Linear(inner, config.dim, bias=config.bias)
        self.dropout = nn.Dropout(config.attn_dropout)
        self.sight, self.turn, self.turn_values = sight, turn, turn_values

    def forward(self, x: Float[Tensor, "B T D"], memory: Memory) -> Float[Tensor, "B T D"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 3 x [B, H, T, E]
        q, k = self.norm_q(q), self.norm_k(k)
        turns, turns_values = self.turn.at(memory.places), self.turn_values.at(memory.places)
        y = memory.attend(self.sight, self.turn(q, turns), self.turn(k, turns), self.turn_values(v, turns_values))
        return self.dropout(self.out(y.transpose(1, 2).flatten(2)))
