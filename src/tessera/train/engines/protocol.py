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

    micro: around one micro-batch; the last one of a step synchronises, where there are other ranks.
    norm: the norm of the gradient over all ranks, before it is clipped. Every rank calls it, and then either
        apply: update the weights at a learning rate, and their mean, and clear the gradient; or
        discard: clear the gradient. So no network moves before all have told their norms.
    averaged: inside, the network has the mean of its weights, where it keeps one.
    reader: the network as one rank can call it alone; only the first rank's has weights.
    weights: every weight, whole and in float32, on the first rank.
    load: go on from these weights, given whole on every rank.
    save: write the optimiser's memory, all ranks together; what is returned ends when all of it is there.
    """

    average: Average
    """The mean of its weights, where `optim.ema` asks for one."""
    model: nn.Module
    """What a loss is computed with; an engine may have wrapped the network."""

    def micro(self, last: bool) -> AbstractContextManager[object]: ...
    def backward(self, loss: Tensor) -> None: ...
    def norm(self) -> Tensor: ...
    def apply(self, rate: float) -> None: ...
    def discard(self) -> None: ...
    def averaged(self) -> AbstractContextManager[object]: ...
    def reader(self) -> nn.Module: ...
    def weights(self) -> dict[str, Tensor]: ...
    def load(self, weights: Mapping[str, Tensor]) -> None: ...
    def save(self, folder: Path) -> Future[None] | None: ...
    def restore(self, folder: Path) -> None: ...


class Machine(Protocol):
    """One process of a run. Where several ranks stand behind it, all of them call each method together.

    autocast: around a forward pass: the precision that it computes in.
    least: the smallest of all ranks' numbers.
    assert_replicas_equal: raises TesseraError where ranks differ in a number.
    close: part from the other ranks, after the last step.
    """

    name: str
    rank: int
    world: int
    replicated: bool
    """Whether every rank holds all weights."""
    device: torch.device

    def autocast(self) -> AbstractContextManager[object]: ...
    def all_reduce_mean(self, x: Tensor) -> Tensor: ...
    def least(self, x: float) -> float: ...
    def barrier(self) -> None: ...
    def assert_replicas_equal(self, value: float, what: str) -> None: ...
    def close(self) -> None: ...


class Engine(Machine, Protocol):
    """A machine and the networks that learn on it. The loop talks to nothing else about devices, ranks or precision.

    add: place a network, whose weights are those that training begins with, and make its optimiser.
    step: move every network at its learning rate, or none where any gradient is not finite; returns their norms.
    redo: forget the gradients of a step that failed, so that it can be taken again; False where other ranks have gone
        on with theirs.
    """

    @property
    def trainees(self) -> Mapping[str, Trainee]: ...

    def add(
        self, network: nn.Module, optimizer: MakeOptimizer, clip: float = 0.0, ema: float = 0.0, name: str = "model"
    ) -> Trainee: ...
    def step(self, rates: Mapping[str, float]) -> dict[str, Tensor]: ...
    def redo(self) -> bool: ...
