"""Which parameters decay, how the learning rate moves, and the mean of the weights. It knows no loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tessera.config import OptimConfig
from tessera.nn.loss import Head
from tessera.train.muon import Muon


def tagged(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Every parameter once, by what it is.

    "matrix": weights of linear maps; "kernel": weights of convolutions; "head"; "embedding"; "other": norms, biases,
    scales, positions.
    """
    kinds = {nn.Linear: "matrix", nn.Conv2d: "kernel", nn.ConvTranspose2d: "kernel", Head: "head"}
    tags: dict[str, list[nn.Parameter]] = {t: [] for t in ("matrix", "kernel", "head", "embedding", "other")}
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad or not parameter.numel():
                continue
            seen.add(id(parameter))
            tag = "embedding" if isinstance(module, nn.Embedding) else kinds.get(type(module), "other")
            tags[tag if name == "weight" else "other"].append(parameter)
    return tags


def optimizer_of(config: OptimConfig) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Adam, AdamW (Loshchilov & Hutter 2019), or Muon (Jordan et al. 2024) with AdamW; only weights decay."""
    return lambda model: OPTIMIZERS[config.name](config, tagged(model))


Tags = dict[str, list[nn.Parameter]]


def _groups(config: OptimConfig, tags: Tags, names: Sequence[str]) -> list[dict[str, Any]]:
    decays = {"embedding": 0.0, "other": 0.0}
    return [{"params": tags[n], "weight_decay": decays.get(n, config.weight_decay)} for n in names if tags[n]]


def _adamw(config: OptimConfig, tags: Tags) -> torch.optim.Optimizer:
    return torch.optim.AdamW(_groups(config, tags, list(tags)), lr=config.lr, betas=config.betas, fused=True)


def _adam(config: OptimConfig, tags: Tags) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for group in tags.values() for p in group], lr=config.lr, betas=config.betas, fused=True)


def _muon(config: OptimConfig, tags: Tags) -> torch.optim.Optimizer:
    """Muon for matrices and kernels, AdamW for the rest."""
    muon = Muon([*tags["matrix"], *tags["kernel"]], config.lr, config.weight_decay)
    for group in muon.param_groups:
        group["times"] = config.muon_lr / config.lr if config.muon_lr else 1.0
    rest = _groups(config, tags, [n for n in tags if n not in ("matrix", "kernel")])
    return Together([muon, torch.optim.AdamW(rest, lr=config.lr, betas=config.betas, fused=True)])


OPTIMIZERS = {"adamw": _adamw, "adam": _adam, "muon": _muon}


class Together(torch.optim.Optimizer):
    """Several optimisers as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        self.parts = parts
        self.param_groups = [group for part in parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


class Average:
    """The exponential moving average (EMA) of weights over steps: average = decay * average + (1 - decay) * weights.

    After t steps the decay is at most (1 + t) / (10 + t), so that a short run's average forgets where it began. Where
    the decay is 0 there is no average, and every method does nothing.
    """

    def __init__(self, weights: Sequence[Tensor], decay: float):
        """`weights` are the tensors that the optimiser moves."""
        self.weights, self.decay, self.steps = weights, decay, 0
        self.values = [local(w).clone() for w in weights] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        if self.values:
            self.steps += 1
            decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
            torch._foreach_lerp_(self.values, [local(w) for w in self.weights], 1 - decay)

    @contextmanager
    def swapped(self, follow: Callable[[], None]) -> Iterator[None]:
        """Inside, the weights hold the average, and the average the weights; `follow` is called after each exchange.

        What fails inside ends the run, and then no rank waits for the others to put their weights back.
        """
        self._swap(follow)
        yield
        self._swap(follow)

    @torch.no_grad()
    def _swap(self, follow: Callable[[], None]) -> None:
        for weight, value in zip(map(local, self.weights), self.values, strict=True) if self.values else ():
            kept = weight.clone()
            weight.copy_(value)
            value.copy_(kept)
        if self.values:
            follow()


def local(x: Tensor) -> Tensor:
    """This rank's part of a tensor that is cut up over ranks; others as they are."""
    return x.detach().to_local() if hasattr(x, "to_local") else x.detach()  # type: ignore[operator]


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
        warm = min(1.0, (step + 1) / (c.warmup + 1), done / c.warmup_share if c.warmup_share else 1.0)
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
