"""The Horovod engine, for clusters that have it: its last release is of 2023. Imported only when chosen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tessera.config import MachineConfig
from tessera.errors import ConfigError, TesseraError
from tessera.train.engines.protocol import MakeOptimizer
from tessera.train.engines.single import Single


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


class Horovod(Single):
    """Replicas whose gradients Horovod averages, once per step."""

    name = "horovod"

    def __init__(self, machine: MachineConfig):
        self.library = load()
        self.library.init()
        self.rank, self.world = self.library.rank(), self.library.size()  # type: ignore[misc]
        device = (
            f"cuda:{self.library.local_rank()}"
            if machine.device in ("auto", "cuda") and torch.cuda.is_available()
            else machine.device
        )
        super().__init__(machine.__class__(**{**machine.__dict__, "device": device}))

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> None:
        super().prepare(model, make_optimizer)
        self.library.broadcast_parameters(self.bare.state_dict(), root_rank=0)

    def step(self, max_norm: float, rate: float) -> Tensor:
        for name, p in self.bare.named_parameters():
            if p.grad is not None:
                p.grad = self.library.allreduce(p.grad, name=name)
        return super().step(max_norm, rate)

    def mean(self, x: Tensor) -> Tensor:
        return self.library.allreduce(x.detach().double()).to(x.dtype)

    def least(self, x: float) -> float:
        return float(self.library.allgather(torch.tensor([x], dtype=torch.float64)).min())

    def barrier(self) -> None:
        self.library.allreduce(torch.zeros(1), name="barrier")

    def same(self, value: float, what: str) -> None:
        values = self.library.allgather(torch.tensor([value], dtype=torch.float64))
        if (values != values[0]).any():
            raise TesseraError(f"The ranks disagree about {what}: {values.tolist()}.")

    def save(self, folder: Any) -> Any:
        return super().save(folder) if self.rank == 0 else lambda: None
