"""What a step runs on: placement, precision, backward, update. It knows no objective and no data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tessera.config import MachineConfig
from tessera.device import choose_device, computes_bf16

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


class Engine(Protocol):
    """One process of a run. The loop talks to nothing else about devices, ranks or precision."""

    rank: int
    world: int
    device: torch.device
    model: nn.Module

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> None: ...
    def micro(self, last: bool) -> AbstractContextManager: ...
    def backward(self, loss: Tensor) -> None: ...
    def step(self, max_norm: float, rate: float) -> Tensor: ...
    def mean(self, x: Tensor) -> Tensor: ...
    def state(self) -> Any: ...
    def restore(self, state: Any) -> None: ...


class Single:
    """One process, one device, float32 weights, bf16 autocast where asked."""

    rank, world = 0, 1
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, machine: MachineConfig):
        if machine.threads:
            torch.set_num_threads(machine.threads)
        self.device = choose_device(machine.device)
        wanted = machine.precision == "bf16" or (machine.precision == "auto" and computes_bf16(self.device))
        self.dtype = torch.bfloat16 if wanted else torch.float32
        # On a CPU compiling costs 20 to 40 s and gains little; see docs/LOG.md.
        self.compiles = machine.compile == "on" or (machine.compile == "auto" and self.device.type == "cuda")

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> None:
        # Convolutions run faster with channels last; other weights are left alone by it.
        self.model = model.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.optimizer = make_optimizer(self.model)
        if self.compiles:
            self.model.compile()

    def micro(self, last: bool) -> AbstractContextManager:
        """Around the forward pass of one micro-batch; the last one would synchronise, were there other ranks."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, max_norm: float, rate: float) -> Tensor:
        """Clip, update at learning rate `rate`, clear; returns the gradient norm before clipping (0: no clipping)."""
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm or float("inf"))
        if norm.isfinite():  # a step that would spoil the weights is not taken; the loop sees the norm
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def mean(self, x: Tensor) -> Tensor:
        return x

    def state(self) -> Any:
        return self.optimizer.state_dict()

    def restore(self, state: Any) -> None:
        self.optimizer.load_state_dict(state)
