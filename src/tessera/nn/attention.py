"""Attention over a fixed layout, and what earlier positions leave behind for it. It knows no vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tessera.config import TransformerConfig
from tessera.nn.geometry import BANDS, Layout, band_mask, dense, listed, pattern

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


class Rotary(nn.Module):
    """Turns pairs of neighbouring channels by an angle per position (Su et al. 2021). Angles [L, R / 2].

    Channels beyond R pass through; a table with R = 0 turns nothing.
    """

    turns: Tensor

    def __init__(self, angles: Float[Tensor, "L R"]):
        super().__init__()
        self.register_buffer("turns", torch.stack((angles.cos(), angles.sin()), -1), persistent=False)  # [L, R / 2, 2]
        self.turned = 2 * angles.shape[-1]

    def forward(self, u: Float[Tensor, "B H T E"], where: Where) -> Float[Tensor, "B H T E"]:
        if not self.turned:
            return u
        pairs = u[..., : self.turned].float().unflatten(-1, (-1, 2))
        # One complex product is the fastest in torch's own kernels, and the one thing that its compiler cannot fuse.
        product = real_product if torch.compiler.is_compiling() else complex_product
        turned = product(pairs, self.turns[where].float()).flatten(-2).to(u.dtype)
        return turned if self.turned == u.shape[-1] else torch.cat((turned, u[..., self.turned :]), -1)


def complex_product(a: Float[Tensor, "*B R 2"], b: Float[Tensor, "T R 2"]) -> Float[Tensor, "*B R 2"]:
    return torch.view_as_real(torch.view_as_complex(a.contiguous()) * torch.view_as_complex(b))


def real_product(a: Float[Tensor, "*B R 2"], b: Float[Tensor, "T R 2"]) -> Float[Tensor, "*B R 2"]:
    """The same, written out."""
    (re_a, im_a), (re_b, im_b) = a.unbind(-1), b.unbind(-1)
    return torch.stack((re_a * re_b - im_a * im_b, re_a * im_b + im_a * re_b), -1)


class HeadNorm(nn.Module):
    """RMSNorm over a head's channels, in the type of its input."""

    def __init__(self, head_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))

    def forward(self, u: Float[Tensor, "B H T E"]) -> Float[Tensor, "B H T E"]:
        return F.rms_norm(u, self.weight.shape, self.weight.to(u.dtype))


def angles_2d(layout: Layout, head_dim: int) -> Tensor:
    """2-D rotary angles [L, E / 2]: one pair in four turns with the place in the text, the others by row and column."""
    text = head_dim // 8
    rows = (head_dim // 2 - text) // 2
    position = torch.arange(layout.length)
    is_code = position >= layout.text
    row, col = layout.place(position)

    def turn(index: Tensor, pairs: int, slowest: float) -> Tensor:
        return index[:, None] * slowest ** (-torch.arange(pairs) / max(pairs - 1, 1))

    along = turn(torch.where(is_code, layout.text, position).float(), text, 1000.0)
    down = turn(torch.where(is_code, row + 1, 0).float(), rows, 50.0)
    across = turn(torch.where(is_code, col + 1, 0).float(), head_dim // 2 - text - rows, 50.0)
    return torch.cat((along, down, across), -1)


def angles_dalle1(layout: Layout, head_dim: int) -> Tensor:
    """DALLE-pytorch's table [L, 3 * (rot // 2)], rot = head_dim // 3: language frequencies by text position (codes
    stand at 8192), then pixel frequencies by row and by column in -1 ... 1 (text stands at -10)."""
    pairs = (head_dim // 3) // 2
    language = 10000.0 ** -(torch.arange(0, 2 * pairs, 2).float() / (head_dim // 3))
    pixel = torch.linspace(1.0, 5.0, pairs) * math.pi
    position = torch.arange(layout.length)
    is_code = position >= layout.text
    axis = torch.linspace(-1.0, 1.0, layout.grid)
    row, col = (axis[u.clamp(0, layout.grid - 1)] for u in layout.place(position))
    along = torch.where(is_code, 8192, position).float()[:, None] * language
    down = torch.where(is_code, row, -10.0)[:, None] * pixel
    across = torch.where(is_code, col, -10.0)[:, None] * pixel
    return torch.cat((along, down, across), -1)


ROUND_DALLE1 = {"rotary_dalle1": lambda angles: angles, "rotary_dalle1_half": lambda angles: angles.half().float()}


def rotaries(config: TransformerConfig, layout: Layout) -> tuple[Rotary, Rotary]:
    """What turns queries and keys, and what turns values (DALL-E 1 turned these too)."""
    nothing = Rotary(torch.zeros(layout.length, 0))
    if config.positions == "rotary":
        return Rotary(angles_2d(layout, config.head_dim)), nothing
    if config.positions in ROUND_DALLE1:
        both = Rotary(ROUND_DALLE1[config.positions](angles_dalle1(layout, config.head_dim)))
        return both, both
    return nothing, nothing


FEW_CODES = 1024
"""Below so many codes a dense mask is as fast as leaving keys out; see `docs/LOG.md`."""


class Visibility(nn.Module):
    """Attention restricted to a pattern: softmax(q k / sqrt(E)) v over the keys each query may see.

    The dense mask is the meaning of a pattern; its band and `seen` are ways to read less than all keys.
    """

    mask: Tensor
    band_mask: Tensor
    seen: Tensor
    seen_mask: Tensor

    def __init__(self, name: str, layout: Layout):
        super().__init__()
        self.name, self.layout, self.band = name, layout, BANDS.get(name)
        allowed = pattern(name, layout)
        with torch.device("cpu"):  # lists have no size before they are made, which a model without memory cannot bear
            tables = {"mask": dense(allowed, layout.length)}
            if self.band:
                tables["band_mask"] = band_mask(allowed, layout, self.band)
                tables["seen"], tables["seen_mask"] = listed(tables["mask"])
        for table, value in tables.items():
            self.register_buffer(table, value.to(torch.get_default_device()), persistent=False)
        # A plain causal mask need not be read from memory: a third faster on CPU.
        banded = self.band and layout.codes >= FEW_CODES
        self.at_once = self._causal if name == "full" else self._banded if banded else self._masked

    def forward(self, q: Tensor, k: Tensor, v: Tensor, where: Where) -> Tensor:
        if isinstance(where, slice):
            return self.at_once(q, k, v)
        if self.band and len(where) == 1:
            keys = self.seen.index_select(0, where)[0]
            k, v = k.index_select(2, keys), v.index_select(2, keys)
            return attention(q, k, v, self.seen_mask[where])
        return attention(q, k, v, self.mask[where, : k.shape[2]])

    def _banded(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Text on its own; then each row (or column) of codes with all of the text and the rows it may see."""
        b, h, t, e = q.shape
        text, grid, codes = self.layout.text, self.layout.grid, t - self.layout.text
        if codes <= 0 or self.band is None:
            return self._masked(q, k, v)
        everything, (q, k, v) = (
            (q, k, v),
            (F.pad(u[:, :, text:], (0, 0, 0, self.layout.codes - codes)) for u in (q, k, v)),
        )
        q, k, v = (u.reshape(b * h, grid, grid, e) for u in (q, k, v))
        if self.band.columns:
            q, k, v = (u.transpose(1, 2) for u in (q, k, v))
        k, v = (
            torch.cat((w[:, :, :text].reshape(b * h, 1, text, e).expand(-1, grid, -1, -1), _above(u, self.band.up)), 2)
            for w, u in zip(everything[1:], (k, v), strict=True)
        )
        y = F.scaled_dot_product_attention(q, k, v, self.band_mask)
        y = (y.transpose(1, 2) if self.band.columns else y).reshape(b, h, grid * grid, e)
        return torch.cat((self._causal(*(u[:, :, :text] for u in everything)), y[:, :, :codes]), 2)

    def _causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def _masked(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        t = q.shape[2]
        return F.scaled_dot_product_attention(q, k, v, self.mask[:t, :t])


def attention(
    q: Float[Tensor, "B H t E"], k: Float[Tensor, "B H T E"], v: Float[Tensor, "B H T E"], mask: Bool[Tensor, "t T"]
) -> Float[Tensor, "B H t E"]:
    """softmax(q k / sqrt(E)) v over what the mask lets each query see.

    One query is written out for torch.compile, which makes one loop of it and what stands around it.
    """
    if not torch.compiler.is_compiling() or q.shape[2] > 1:
        return F.scaled_dot_product_attention(q, k, v, mask)
    scores = (k * q).sum(-1) * q.shape[-1] ** -0.5
    return (scores.masked_fill(~mask, -torch.inf).softmax(-1)[..., None] * v).sum(2, keepdim=True)


def _above(rows: Float[Tensor, "B G Q E"], up: int) -> Float[Tensor, "B G K E"]:
    """Each row with `up` rows above it, those beyond the border zero."""
    grid = rows.shape[1]
    padded = F.pad(rows, (0, 0, 0, 0, up, 0))
    return torch.cat([padded[:, i : i + grid] for i in range(up + 1)], 2)


class Everyone(nn.Module):
    """Attention of an encoder: every position sees all that count."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, where: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, where[:, None, None])


def sight(name: str, layout: Layout) -> nn.Module:
    return Everyone() if name == "all" else Visibility(name, layout)


class Attention(nn.Module):
    """Multi-head self-attention over a layout."""

    def __init__(self, config: TransformerConfig, sight: nn.Module, turn: Rotary, turn_values: Rotary):
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
        q, k, v = self.turn(q, memory.where), self.turn(k, memory.where), self.turn_values(v, memory.where)
        k, v = memory.extend(k, v)
        y = self.sight(q, k, v, memory.where)
        return self.dropout(self.out(y.transpose(1, 2).flatten(2)))
