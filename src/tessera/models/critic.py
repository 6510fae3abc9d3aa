"""A critic that tells reconstructions from pictures by what a frozen network sees. It knows neither."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Critic(nn.Module):
    """A small head on each tap of a frozen network: a score at every place, high for pictures (Projected GAN, Sauer et
    al. 2021, without its random projections)."""

    def __init__(self, widths: Sequence[int], hidden: int = 64):
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, hidden, 1), nn.LeakyReLU(0.2), nn.Conv2d(hidden, hidden, 3, padding=1),
                nn.LeakyReLU(0.2), nn.Conv2d(hidden, 1, 1),
            )
            for width in widths
        )  # fmt: skip

    def forward(self, wanted: Sequence[Tensor], found: Sequence[Tensor]) -> Float[Tensor, ""]:
        """Its own loss, a hinge (Lim & Ye 2017), of the taps of pictures and of reconstructions."""
        hinges = [(1 - s).relu().mean() for s in self.scores(wanted)] + [
            (1 + s).relu().mean() for s in self.scores(found)
        ]
        return torch.stack(hinges).sum() / len(self.heads)

    def scores(self, taps: Sequence[Float[Tensor, "B C h w"]]) -> list[Float[Tensor, "B 1 h w"]]:
        """By each head. Taps are unit vectors, which are scaled to entries of about 1."""
        return [head(tap.detach() * math.sqrt(tap.shape[1])) for head, tap in zip(self.heads, taps, strict=True)]

    def score(self, *taps: Tensor) -> Float[Tensor, ""]:
        """The mean over heads and places."""
        each = [head(tap * math.sqrt(tap.shape[1])).mean() for head, tap in zip(self.heads, taps, strict=True)]
        return torch.stack(each).mean()


class Through(torch.autograd.Function):
    """`Through.apply(network, *inputs)`: a network's output whose gradient reaches the inputs alone, under any engine;
    its own weights are not asked."""

    @staticmethod
    def forward(ctx: Any, network: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.inputs = [x.detach().requires_grad_() for x in inputs]
        with torch.enable_grad():
            ctx.output = network(*ctx.inputs)
        return ctx.output.detach()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return None, *torch.autograd.grad(ctx.output, ctx.inputs, slope)
