"""Output heads whose full logits never exist: the cross entropy is taken in chunks. It does not know models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

IGNORE = -100
"""A target that does not count, as in torch."""

Slopes = Callable[[Tensor, Tensor, Tensor, bool], tuple[Tensor, Tensor, Tensor | None]]


class Head(nn.Module):
    """A linear map to a vocabulary. Called, it gives the cross entropy, averaged over each row's targets and then over
    the rows, so that equal parts of a batch average to the batch; `logits` gives the logits."""

    def __init__(self, dim: int, vocab: int, bias: bool, chunk: int = 2**23):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab, dim))
        self.bias = nn.Parameter(torch.zeros(vocab)) if bias else None
        self.rows = max(1, chunk // vocab)
        self.slopes = slopes
        self.product: Callable[[Tensor], Tensor] | None = None  # what drawing takes the logits with instead
        nn.init.uniform_(self.weight, -(dim**-0.5), dim**-0.5)  # nn.Linear's own
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(dim**-0.5), dim**-0.5)

    def forward(self, hidden: Float[Tensor, "B T D"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        counts = targets != IGNORE
        share = (counts / counts.sum(1, keepdim=True).clamp(min=1) / len(targets)).flatten()
        hidden, targets = hidden.flatten(0, 1), targets.flatten().clamp(min=0)
        if torch.is_grad_enabled():
            rows = self.rows * (4 // _product_type(self.weight).itemsize)
            return _ChunkedCrossEntropy.apply(hidden, self.weight, self.bias, targets, share, rows, self.slopes)
        chunks = zip(hidden.split(self.rows), targets.split(self.rows), share.split(self.rows), strict=True)
        parts = [(F.cross_entropy(self.logits(h).float(), t, reduction="none") * s).sum() for h, t, s in chunks]
        return torch.stack(parts).sum()

    def take(self, slopes: Slopes) -> None:
        """Use `slopes` that pass over the logits once and make no float32 copies, so that chunks may be larger. The
        loop over chunks is not traced: it is made of large products already, and that takes minutes."""
        self.slopes, self.forward = slopes, torch.compiler.disable(self.forward)  # type: ignore[method-assign]
        self.rows *= 4

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        return self.product(hidden) if self.product else F.linear(hidden, self.weight, self.bias)


def slopes(
    logits: Float[Tensor, "R V"], targets: Int[Tensor, " R"], share: Float[Tensor, " R"], summed: bool
) -> tuple[Float[Tensor, ""], Float[Tensor, "R V"], Float[Tensor, " V"] | None]:
    """The weighted cross entropy, its gradient (softmax - onehot) * share in the logits' type, and that one's sum over
    rows where asked. Compiled it is one pass over the logits; without it takes several."""
    targets, share = targets[:, None], share[:, None]
    logp = logits.log_softmax(-1, dtype=torch.float32)
    loss = -(logp.gather(1, targets) * share).sum()
    slope = logp.exp_().mul_(share).scatter_add_(1, targets, -share)
    return loss, slope.to(logits.dtype), slope.sum(0) if summed else None


def _product_type(weight: Tensor) -> torch.dtype:
    """What matrix products are taken in here."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Weighted cross entropy of a linear map; the gradient is taken chunk by chunk while the chunk's logits are there.

    d loss / d logits = (softmax - onehot) * share is known in the forward pass already, so each chunk's logits are
    made once and thrown away (the idea of Liger and Cut Cross-Entropy, Wijmans et al. 2024).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, share: Tensor, rows: int,
        slopes: Slopes,
    ) -> Tensor:  # fmt: skip
        w = weight.to(_product_type(weight))
        b = None if bias is None else bias.to(w.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.empty_like(weight)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        total = torch.zeros((), device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), rows):
                part = slice(start, start + rows)
                h = hidden[part].to(w.dtype)
                loss, slope, sums = slopes(F.linear(h, w, b), targets[part], share[part], b is not None)
                total += loss
                if grad_bias is not None and sums is not None:
                    grad_bias += sums
                grad_hidden[part] = slope @ w
                if w.dtype == grad_weight.dtype:
                    grad_weight.addmm_(slope.T, h, beta=float(start > 0))
                elif start:
                    grad_weight += slope.T @ h
                else:
                    grad_weight.copy_(slope.T @ h)
        ctx.gradients = grad_hidden, grad_weight, grad_bias
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = (None if g is None else g.mul_(grads[0]) for g in ctx.gradients)
        ctx.gradients = None
        return hidden, weight, bias, None, None, None, None
