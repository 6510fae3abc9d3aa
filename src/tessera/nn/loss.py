"""Output heads whose full logits never exist: the cross entropy is taken in chunks. It knows no model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

IGNORE = -100
"""A target that does not count, as in torch."""


class Head(nn.Module):
    """A linear map to a vocabulary. Called, it gives the cross entropy, averaged over each row's targets and then over
    the rows, so that equal parts of a batch average to the batch; `logits` gives the logits."""

    def __init__(self, dim: int, vocab: int, bias: bool, chunk: int = 2**22):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab, dim))
        self.bias = nn.Parameter(torch.zeros(vocab)) if bias else None
        self.rows = max(1, chunk // vocab)
        nn.init.uniform_(self.weight, -(dim**-0.5), dim**-0.5)  # nn.Linear's own
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(dim**-0.5), dim**-0.5)

    def forward(self, hidden: Float[Tensor, "B T D"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        counts = targets != IGNORE
        share = (counts / counts.sum(1, keepdim=True).clamp(min=1) / len(targets)).flatten()
        hidden, targets = hidden.flatten(0, 1), targets.flatten().clamp(min=0)
        if torch.is_grad_enabled():
            return _ChunkedCrossEntropy.apply(hidden, self.weight, self.bias, targets, share, self.rows)
        chunks = zip(hidden.split(self.rows), targets.split(self.rows), share.split(self.rows), strict=True)
        parts = [(F.cross_entropy(self.logits(h).float(), t, reduction="none") * s).sum() for h, t, s in chunks]
        return torch.stack(parts).sum()

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        return F.linear(hidden, self.weight, self.bias)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Weighted cross entropy of a linear map; the gradient is taken chunk by chunk while the chunk's logits are there.

    d loss / d logits = (softmax - onehot) * share is known in the forward pass already, so each chunk's logits are
    made once and thrown away (the idea of Liger and Cut Cross-Entropy, Wijmans et al. 2024).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, share: Tensor, rows: int
    ) -> Tensor:
        compute = (
            torch.get_autocast_dtype(hidden.device.type) if torch.is_autocast_enabled(hidden.device.type) else None
        )
        w = weight.to(compute or weight.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        total = torch.zeros((), device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), rows):
                part = slice(start, start + rows)
                h, t, s = hidden[part].to(w.dtype), targets[part, None], share[part, None]
                logits = F.linear(h, w, None if bias is None else bias.to(w.dtype)).float()
                norm = logits.logsumexp(-1, keepdim=True)
                total += ((norm - logits.gather(1, t)) * s).sum()
                slope = logits.sub_(norm).exp_()
                slope.scatter_add_(1, t, torch.full_like(norm, -1.0)).mul_(s)
                if grad_bias is not None:
                    grad_bias += slope.sum(0)
                slope = slope.to(w.dtype)
                grad_hidden[part] = slope @ w
                if w.dtype == grad_weight.dtype:
                    grad_weight.addmm_(slope.T, h)
                else:
                    grad_weight += slope.T @ h
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        return hidden * grads[0], weight * grads[0], None if bias is None else bias * grads[0], None, None, None
