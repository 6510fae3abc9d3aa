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
    """A linear map to a vocabulary. Called, it gives the mean cross entropy; `logits` gives the logits."""

    def __init__(self, dim: int, vocab: int, bias: bool, chunk: int = 2**22):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab, dim))
        self.bias = nn.Parameter(torch.zeros(vocab)) if bias else None
        self.rows = max(1, chunk // vocab)
        nn.init.uniform_(self.weight, -(dim**-0.5), dim**-0.5)  # nn.Linear's own
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(dim**-0.5), dim**-0.5)

    def forward(self, hidden: Float[Tensor, "B T D"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        hidden, targets = hidden.flatten(0, 1), targets.flatten()
        if torch.is_grad_enabled():
            return _ChunkedCrossEntropy.apply(hidden, self.weight, self.bias, targets, self.rows)
        count = (targets != IGNORE).sum().clamp(min=1)
        chunks = zip(hidden.split(self.rows), targets.split(self.rows), strict=True)
        total = sum(F.cross_entropy(self.logits(h).float(), t, ignore_index=IGNORE, reduction="sum") for h, t in chunks)
        return total / count

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        return F.linear(hidden, self.weight, self.bias)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross entropy of a linear map, whose gradient is taken chunk by chunk while the chunk's logits are there.

    d loss / d logits = (softmax - onehot) / count is known in the forward pass already, so each chunk's logits are
    made once and thrown away (the idea of Liger and Cut Cross-Entropy, Wijmans et al. 2024).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rows: int) -> Tensor:
        valid = targets != IGNORE
        count = valid.sum().clamp(min=1)
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
                h, t, ok = hidden[part].to(w.dtype), targets[part].clamp(min=0)[:, None], valid[part, None]
                logits = F.linear(h, w, None if bias is None else bias.to(w.dtype)).float()
                norm = logits.logsumexp(-1, keepdim=True)
                total += ((norm - logits.gather(1, t)) * ok).sum()
                slope = logits.sub_(norm).exp_()
                slope.scatter_add_(1, t, torch.full_like(norm, -1.0)).mul_(ok / count)
                if grad_bias is not None:
                    grad_bias += slope.sum(0)
                slope = slope.to(w.dtype)
                grad_hidden[part] = slope @ w
                if w.dtype == grad_weight.dtype:
                    grad_weight.addmm_(slope.T, h)
                else:
                    grad_weight += slope.T @ h
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        return hidden * grads[0], weight * grads[0], None if bias is None else bias * grads[0], None, None
