"""The Horovod engine, for clusters that have it: its last release is of 2023. Imported only when chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tessera.config import MachineConfig
from tessera.errors import ConfigError, TesseraError
from tessera.train.engines.protocol import MakeOptimizer
from tessera.train.engines.single import SingleEngine, SingleTrainee


def load() -> Any:
    """Raises ConfigError where it is not installed, with what building it takes."""
    try:
        import horovod.torch as library  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(
            "The horovod engine needs Horovod 0.28.1, which today's torch builds only with a compiler wrapper that "
            "turns -std=c++14 into -std=c++20 (docs/cluster.md). --machine.engine ddp does the same without it."
        ) from error
    return library


class HorovodTrainee(SingleTrainee):
    """A network that every rank holds whole; Horovod averages its gradients, once per step."""

    def prepare(self, make_optimizer: MakeOptimizer) -> None:
        super().prepare(make_optimizer)
        self.engine.library.broadcast_parameters(self.bare.state_dict(), root_rank=0)

    def norm(self) -> Tensor:
        for name, p in self.bare.named_parameters():
            if p.grad is not None:
                p.grad = self.engine.library.allreduce(p.grad, name=name)
        return super().norm()


class HorovodEngine(SingleEngine):
    """Replicas that Horovod joins."""

    name = "horovod"
    trainee = HorovodTrainee

    def __init__(self, machine: MachineConfig):
        self.library = load()
        self.library.init()
        self.rank, self.world = self.library.rank(), self.library.size()  # type: ignore[misc]
        on_gpu = machine.device in ("auto", "cuda") and torch.cuda.is_available()
        super().__init__(replace(machine, device=f"cuda:{self.library.local_rank()}" if on_gpu else machine.device))

    def all_reduce_mean(self, x: Tensor) -> Tensor:
        return self.library.allreduce(x.detach().double()).to(x.dtype)

    def least(self, x: float) -> float:
        return float(self.library.allgather(torch.tensor([x], dtype=torch.float64)).min())

    def barrier(self) -> None:
        self.library.allreduce(torch.zeros(1), name="barrier")

    def assert_replicas_equal(self, value: float, what: str) -> None:
        values = self.library.allgather(torch.tensor([value], dtype=torch.float64))
        if (values != values[0]).any():
            raise TesseraError(f"The ranks disagree about {what}: {values.tolist()}.")
