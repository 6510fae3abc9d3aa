"""The transformer: branches wired into a stack. It does not know vocabularies or losses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tessera.config import TransformerConfig
from tessera.nn.attention import Attention, Visibility
from tessera.nn.cache import Memory, Nothing, Past, Slot
from tessera.nn.geometry import Layout
from tessera.nn.rotary import rotaries

NORMS = {"rms": nn.RMSNorm, "layer": nn.LayerNorm}


class TokenShift(nn.Module):
    """Part of each position's channels comes from an earlier position (DALLE-pytorch's shift_tokens).

    Text: the first half from the position before. Codes: the first quarter from the code above, the second from the
    code to the left. Beyond a border stands zero. One fixed table of source rows serves training and decoding.
    """

    sources: Tensor

    def __init__(self, layout: Layout, dim: int):
        super().__init__()
        half, quarter = -(-dim // 2), -(-dim // 4)
        cuts = sorted({0, quarter, min(2 * quarter, dim), half})
        position = torch.arange(layout.length)
        row, col = layout.row_col(position)
        is_code = position >= layout.text
        above = torch.where(row > 0, position - layout.grid, -1)
        left = torch.where(col > 0, position - 1, -1)
        sources = []
        for start in cuts[:-1]:
            code = above if start < quarter else left if start < 2 * quarter else position
            text = position - 1 if start < half else position
            sources.append(torch.where(is_code, code, text))
        self.spans = list(pairwise(cuts))
        self.rest = cuts[-1]
        self.register_buffer("sources", torch.stack(sources), persistent=False)  # [spans, L]; -1 is the row of zeros

    def forward(self, x: Float[Tensor, "B T D"], memory: Memory) -> Float[Tensor, "B T D"]:
        return torch.cat([*memory.recall(x, self.sources[:, memory.places], self.spans), x[..., self.rest :]], -1)


class NoShift(nn.Module):
    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        return x


class Scale(nn.Module):
    """A learned factor per channel (LayerScale, Touvron et al. 2021)."""

    def __init__(self, dim: int, value: float):
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class FeedForward(nn.Module):
    """Two linear maps with a gate or a squared ReLU between them."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        hidden = 8 * round(config.dim * config.ff_mult / 8) or 8
        gates = 1 if config.ff == "relu2" else 2
        self.up = nn.Linear(config.dim, gates * hidden, bias=config.bias)
        self.act = ACTIVATIONS[config.ff]
        self.dropout = nn.Dropout(config.ff_dropout)
        self.out = nn.Linear(hidden, config.dim, bias=config.bias)

    def forward(self, x: Float[Tensor, "B T D"], memory: Memory) -> Float[Tensor, "B T D"]:
        return self.out(self.dropout(self.act(self.up(x))))


class Gated(torch.autograd.Function):
    """The first half of the channels times an activation of the second (Shazeer 2020), which keeps nothing but its
    input and writes its gradient in one piece: a third less memory than autograd's own way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, act: Any, slope: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.act, ctx.slope = act, slope
        a, gate = x.chunk(2, -1)
        return act(gate).mul_(a)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        found = torch.empty_like(x)
        (a, gate), (to_a, to_gate) = x.chunk(2, -1), found.chunk(2, -1)
        ctx.act(gate, out=to_a)
        to_a.mul_(grad)
        ctx.slope(grad * a, gate, grad_input=to_gate)
        return found, None, None


def _gated(x: Tensor, act: Any, slope: Any) -> Tensor:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return Gated.apply(x, act, slope)
    a, gate = x.chunk(2, -1)
    return a * act(gate)


def _geglu(x: Tensor) -> Tensor:
    return _gated(x, torch.ops.aten.gelu, torch.ops.aten.gelu_backward)


def _swiglu(x: Tensor) -> Tensor:
    return _gated(x, torch.ops.aten.silu, torch.ops.aten.silu_backward)


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"geglu": _geglu, "swiglu": _swiglu, "relu2": _relu2}
"""Functions by name, so that a model with them can be pickled."""


class Branch(nn.Module):
    """norm -> shift -> fn -> norm -> scale; absent parts are identities. `fn` may be shared, the rest never is."""

    def __init__(self, config: TransformerConfig, layout: Layout, fn: nn.Module, layer: int, slot: int):
        super().__init__()
        norm = NORMS[config.norm]
        self.norm = norm(config.dim)
        self.shift = TokenShift(layout, config.dim) if config.shift else NoShift()
        self.fn = fn
        self.norm_out = norm(config.dim) if config.sandwich else nn.Identity()
        start = 0.1 if layer < 18 else 1e-5 if layer < 24 else 1e-6
        self.scale = Scale(config.dim, start) if config.layer_scale else nn.Identity()
        self.slot = slot

    def forward(self, x: Float[Tensor, "B T D"], past: Past | Nothing) -> Float[Tensor, "B T D"]:
        memory = past[self.slot]
        return self.scale(self.norm_out(self.fn(self.shift(self.norm(x), memory), memory)))


def residual(pairs: nn.ModuleList, x: Tensor, past: Past | Nothing) -> Tensor:
    for attend, feed in pairs:  # type: ignore[misc]
        x = x + attend(x, past)
        x = x + feed(x, past)
    return x


def reversible(pairs: nn.ModuleList, x: Tensor, past: Past | Nothing) -> Tensor:
    """y1 = x1 + f(x2), y2 = x2 + g(y1); the output is the mean of both streams (Gomez et al. 2017)."""
    if torch.is_grad_enabled() and x.requires_grad:
        return torch.add(*_Reversible.apply(x, pairs, past)) / 2
    return reversible_kept(pairs, x, past)


def reversible_kept(pairs: nn.ModuleList, x: Tensor, past: Past | Nothing) -> Tensor:
    """The same numbers with every activation kept for the backward pass: faster, where memory is at hand."""
    return torch.add(*reversible_streams(pairs, x, past)) / 2


def reversible_streams(
    pairs: nn.ModuleList, x: Tensor, past: Past | Nothing, before: Callable[[], None] = lambda: None
) -> tuple[Tensor, Tensor]:
    """Both streams; `before` is called before each branch."""
    y1 = y2 = x
    for attend, feed in pairs:  # type: ignore[misc]
        before()
        y1 = y1 + attend(y2, past)
        before()
        y2 = y2 + feed(y1, past)
    return y1, y2


class _Reversible(torch.autograd.Function):
    """Keeps only the outputs; the backward pass recomputes each branch from them, with the same dropout.

    Parameter gradients accumulate through `torch.autograd.backward` on each branch, so that hooks of sharding engines
    fire; returning them from here would bypass those.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, pairs: nn.ModuleList, past: Nothing) -> tuple[Tensor, Tensor]:
        ctx.pairs, ctx.past, ctx.device, ctx.states = pairs, past, x.device.type, []
        ctx.autocast = torch.is_autocast_enabled(ctx.device), torch.get_autocast_dtype(ctx.device)
        y1, y2 = reversible_streams(pairs, x, past, lambda: ctx.states.append(_noise_state(x.device)))
        ctx.save_for_backward(y1, y2)
        return y1, y2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        y1, y2 = ctx.saved_tensors
        g1, g2 = grads
        after = _noise_state(y1.device)
        for attend, feed in reversed(ctx.pairs):  # type: ignore[misc]
            y2, g1 = _undo(ctx, feed, y1, y2, g1, g2)
            y1, g2 = _undo(ctx, attend, y2, y1, g2, g1)
        _set_noise_state(after, y1.device)
        return g1 + g2, None, None


def _undo(ctx: Any, branch: nn.Module, source: Tensor, y: Tensor, g_source: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Invert y = x + branch(source): return x, and the gradient of `source` with the branch's share added."""
    _set_noise_state(ctx.states.pop(), y.device)
    source = source.detach().requires_grad_()
    enabled, dtype = ctx.autocast
    with torch.enable_grad(), torch.autocast(ctx.device, dtype, enabled):
        out = branch(source, ctx.past)
    torch.autograd.backward(out, g.to(out.dtype))
    with torch.no_grad():
        assert source.grad is not None
        return y - out, g_source + source.grad


def _noise_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_noise_state(state: Tensor, device: torch.device) -> None:
    torch.cuda.set_rng_state(state, device) if device.type == "cuda" else torch.set_rng_state(state)


class Transformer(nn.Module):
    """`depth` pairs of attention and feed-forward branches over a layout; [B, T, D] -> [B, T, D]."""

    def __init__(self, config: TransformerConfig, layout: Layout, attention: type[Attention] = Attention):
        super().__init__()
        self.config, self.layout = config, layout
        self.wiring = reversible if config.reversible else residual
        self.any_order = set(config.patterns) <= {"full", "all"} and not config.shift
        turn, turn_values = rotaries(config, layout)
        sights = {name: Visibility(name, layout) for name in config.patterns}
        attentions: dict[Any, nn.Module] = {}
        feeds: dict[Any, nn.Module] = {}
        self.pairs = nn.ModuleList()
        for i in range(config.depth):
            attn_id = config.shared_attn[i % len(config.shared_attn)] if config.shared_attn else i
            ff_id = config.shared_ff[i % len(config.shared_ff)] if config.shared_ff else i
            if attn_id not in attentions:
                seen = sights[config.patterns[i % len(config.patterns)]]
                attentions[attn_id] = attention(config, seen, turn, turn_values)
            if ff_id not in feeds:
                feeds[ff_id] = FeedForward(config)
            attend = Branch(config, layout, attentions[attn_id], i, 2 * i)
            self.pairs.append(nn.ModuleList([attend, Branch(config, layout, feeds[ff_id], i, 2 * i + 1)]))
        if config.zero_init:
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=config.dim**-0.5)
                if isinstance(module, Attention | FeedForward):
                    nn.init.zeros_(module.out.weight)

    def forward(self, x: Float[Tensor, "B T D"], past: Past | Nothing | None = None) -> Float[Tensor, "B T D"]:
        past = past or Nothing(x.shape[1])
        assert past.raster or self.any_order, "patterns and the token shift need raster order: give no other places"
        return self.wiring(self.pairs, x, past)

    def past(self, batch: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Past:
        """An empty past for `batch` rows."""
        c, length = self.config, self.layout.length

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, device=device, dtype=dtype)

        slots = []
        for i in range(2 * c.depth):
            kept = length if i % 2 == 0 else 0  # feed-forward branches have no keys
            keys, values = zeros(c.heads, kept, c.head_dim), zeros(c.heads, kept, c.head_dim)
            slots.append(Slot(keys, values, zeros(length + 1 if c.shift else 0, c.dim)))
        return Past(slots, length, device)
