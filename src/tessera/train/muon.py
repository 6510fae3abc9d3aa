"""Muon: momentum whose every update is made orthogonal. It knows no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tessera.machine.device import computes_bf16

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that brings singular values near 1 (Jordan et al. 2024)."""
ROUNDS = 3
"""Of the quintic. Five are usual; three cost less and learn as much (docs/ablation.md)."""


class Muon(torch.optim.Optimizer):
    """Jordan et al. 2024, with updates as large as AdamW's (Liu et al. 2025, eq. 4).

    torch.optim.Muon takes matrices alone and always multiplies in bf16, which many processors imitate slowly. This
    one takes kernels of convolutions too, as [out, in * height * width], and bf16 only where the hardware has it.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            dtype = torch.bfloat16 if computes_bf16(group["params"][0].device) else torch.float32
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, dtype, group["lr"], group["weight_decay"], group["momentum"])

    def _move(self, weight: nn.Parameter, dtype: torch.dtype, lr: float, decay: float, momentum: float) -> None:
        state, grad = self.state[weight], weight.grad
        assert grad is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        mean = state["momentum_buffer"]
        mean.lerp_(grad, 1 - momentum)
        ahead = grad.lerp(mean, momentum)  # Nesterov's
        update = orthogonal(ahead.flatten(1), dtype)
        weight.mul_(1 - lr * decay)
        weight.add_(update.reshape(weight.shape), alpha=-lr * 0.2 * math.sqrt(max(update.shape)))


def orthogonal(x: Float[Tensor, "M N"], dtype: torch.dtype, rounds: int = ROUNDS) -> Float[Tensor, "M N"]:
    """A matrix with the singular vectors of `x`, whose singular values come nearer to 0.7 ... 1.2 with each round of
    Newton-Schulz."""
    a, b, c = NEWTON_SCHULZ
    wide = x.to(dtype) if x.shape[0] <= x.shape[1] else x.to(dtype).T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(rounds):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if x.shape[0] <= x.shape[1] else wide.T
