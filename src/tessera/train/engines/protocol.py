"""What the loop asks of a machine, and of each network that learns on it. It knows no objective and no data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from tessera.train.optim import Average

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


class Trainee(Protocol):
    """One network with its optimiser.

    Every rank calls `norm`, and then either `apply` or `discard`: no network moves before all have told their norms.
    """

    average: Average
    """The mean of its weights, where `optim.ema` asks for one."""
    model: nn.Module
    """What a loss is computed with; an engine may have wrapped the network."""

    def micro(self, last: bool) -> AbstractContextManager:
        """Around one micro-batch; the last one of a step synchronises, where there are other ranks."""

    def backward(self, loss: Tensor) -> None: ...

    def norm(self) -> Tensor:
        """The norm of the gradient over all ranks, before it is clipped."""

    def apply(self, rate: float) -> None:
        """Update the weights at a learning rate, and their mean, and clear the gradient."""

    def discard(self) -> None:
        """Clear the gradient; nothing is updated."""

    def averaged(self) -> AbstractContextManager:
        """Inside, the network has the mean of its weights, where it keeps one."""

    def reader(self) -> nn.Module:
        """The network as one rank can call it alone; only the first rank's has weights."""

    def weights(self) -> dict[str, Tensor]:
        """Every weight, whole and in float32, on the first rank."""

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from these weights, given whole on every rank."""

    def save(self, folder: Path) -> Future | None:
        """Write the optimiser's memory, all ranks together; what is returned ends when all of it is there."""

    def restore(self, folder: Path) -> None: ...


class Machine(Protocol):
    """One process of a run. Where several ranks stand behind it, all of them call each method together."""

    name: str
    rank: int
    world: int
    replicated: bool
    """Whether every rank holds all weights."""
    device: torch.device

    def autocast(self) -> AbstractContextManager:
        """Around a forward pass: the precision that it computes in."""

    def all_reduce_mean(self, x: Tensor) -> Tensor: ...

    def least(self, x: float) -> float:
        """The smallest of all ranks'."""

    def barrier(self) -> None: ...

    def assert_replicas_equal(self, value: float, what: str) -> None:
        """Raises TesseraError where ranks differ in `value`."""

    def close(self) -> None:
        """Part from the other ranks, after the last step."""


class Engine(Machine, Protocol):
    """A machine and the networks that learn on it. The loop talks to nothing else about devices, ranks or precision."""

    @property
    def trainees(self) -> Mapping[str, Trainee]: ...

    def add(
        self, network: nn.Module, optimizer: MakeOptimizer, clip: float = 0.0, ema: float = 0.0, name: str = "model"
    ) -> Trainee:
        """Place a network, whose weights are those that training begins with, and make its optimiser."""

    def step(self, rates: Mapping[str, float]) -> dict[str, Tensor]:
        """Move every network at its learning rate, or none where any gradient is not finite; returns their norms."""

    def redo(self) -> bool:
        """Forget the gradients of a step that failed, so that it can be taken again; False where other ranks have gone
        on with theirs."""
