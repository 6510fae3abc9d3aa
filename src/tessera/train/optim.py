"""Which parameters decay, and how the learning rate moves. It knows no loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tessera.config import OptimConfig


def tagged(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Every parameter once, by what it is: "matrix" (linear and convolution weights), "embedding", "other"."""
    tags: dict[str, list[nn.Parameter]] = {"matrix": [], "embedding": [], "other": []}
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad or not parameter.numel():
                continue
            seen.add(id(parameter))
            is_matrix = name == "weight" and parameter.ndim >= 2
            tag = "embedding" if isinstance(module, nn.Embedding) else "matrix" if is_matrix else "other"
            tags[tag].append(parameter)
    return tags


def optimizer_of(config: OptimConfig) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2019) or Adam; only matrices decay."""

    def make(model: nn.Module) -> torch.optim.Optimizer:
        decays = {"matrix": config.weight_decay}
        groups = [{"params": p, "weight_decay": decays.get(tag, 0.0)} for tag, p in tagged(model).items() if p]
        if config.name == "adam":
            return torch.optim.Adam([p for g in groups for p in g["params"]], lr=config.lr, betas=config.betas)
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)

    return make


Shape = Callable[[float, float], float]
"""(share of training done, share of the rate left at the end) -> share of the peak rate."""

SHAPES: dict[str, Shape] = {
    "cosine": lambda done, end: end + (1 - end) * (1 + math.cos(math.pi * done)) / 2,
    "exponential": lambda done, end: max(end, 1e-8) ** done,
    "constant": lambda done, end: 1.0,
    "plateau": lambda done, end: 1.0,
}


class Schedule:
    """The learning rate: a linear warm-up, then a shape over the training, and halvings where the loss stands still."""

    def __init__(self, config: OptimConfig):
        self.config = config
        self.patience = config.plateau_patience if config.schedule == "plateau" else math.inf
        self.scale, self.best, self.stale = 1.0, math.inf, 0

    def rate(self, step: int, done: float) -> float:
        c = self.config
        warm = min(1.0, (step + 1) / (c.warmup + 1))
        return c.lr * warm * SHAPES[c.schedule](done, c.lr_end) * self.scale

    def observe(self, loss: float) -> None:
        """Take note of a held-out loss."""
        improved = loss < self.best
        self.best, self.stale = (loss, 0) if improved else (self.best, self.stale + 1)
        if self.stale >= self.patience:
            self.scale, self.stale = max(self.scale / 2, self.config.lr_end), 0

    def state(self) -> Any:
        return {"scale": self.scale, "best": self.best, "stale": self.stale}

    def restore(self, state: Any) -> None:
        self.scale, self.best, self.stale = state["scale"], state["best"], state["stale"]
