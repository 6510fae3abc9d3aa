"""One process on one device. It knows no objective and no data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from tessera.config import MachineConfig
from tessera.machine.device import choose_device, compiles, computes_bf16, tune
from tessera.machine.threads import Fixed, Measured
from tessera.nn.loss import Head, slopes
from tessera.nn.stack import economise
from tessera.store.state import write_state
from tessera.train.engines.protocol import MakeOptimizer
from tessera.train.moments import moments, set_moments, whole
from tessera.train.sharded import read_optimizer


class Single:
    """One process, one device, float32 weights, bf16 autocast where asked."""

    name = "single"
    rank, world, replicated = 0, 1, True
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, machine: MachineConfig, adapts: bool = False):
        """`adapts`: the run depends on the clock anyhow, so that its threads may follow how busy the machine is."""
        if machine.threads:
            torch.set_num_threads(machine.threads)
        self.machine, self.device = machine, choose_device(machine.device)
        self.threads = Measured() if adapts and not machine.threads and self.device.type == "cpu" else Fixed()
        tune(self.device)
        wanted = machine.precision == "bf16" or (machine.precision == "auto" and computes_bf16(self.device))
        self.dtype = torch.bfloat16 if wanted else torch.float16 if machine.precision == "fp16" else torch.float32
        # float16 has few small numbers: its gradients are scaled up, its weights stay float32.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.compiles = compiles(machine.compile, self.device)

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> None:
        """Place the model and make its optimiser; the weights it has are those that training begins with."""
        # Convolutions run faster with channels last; other weights are left alone by it.
        self.bare = self.model = model.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        economise(self.bare, self.machine.recompute)
        self.optimizer = make_optimizer(self.bare)
        if self.compiles:
            compile_parts(self.bare)

    def micro(self, last: bool) -> AbstractContextManager:
        """Around the forward pass of one micro-batch; the last one synchronises, where there are other ranks."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def step(self, max_norm: float, rate: float) -> Tensor:
        """Clip, update at learning rate `rate`, clear; returns the gradient norm before clipping.

        Where that is not finite, nothing is updated.
        """
        self.scaler.unscale_(self.optimizer)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.bare.parameters(), max_norm or float("inf")))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if norm.isfinite():
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.threads.tick()
        return norm

    def redo(self) -> bool:
        """Forget the gradients of a step that failed, so that it can be taken again; False where other ranks have gone
        on with theirs."""
        self.optimizer.zero_grad(set_to_none=True)
        return self.world == 1

    def mean(self, x: Tensor) -> Tensor:
        return x

    def least(self, x: float) -> float:
        """The smallest of all ranks'."""
        return x

    def barrier(self) -> None: ...

    def same(self, value: float, what: str) -> None:
        """Raises TesseraError where ranks differ in `value`."""

    def reader(self) -> nn.Module:
        """The model as one rank can call it alone."""
        return self.bare

    def weights(self) -> dict[str, Tensor]:
        """Every weight, whole, on the first rank."""
        return dict(self.bare.state_dict())

    def save(self, folder: Path) -> Callable[[], None]:
        """Write the optimiser's state into `folder`; what is returned waits until it is all there."""
        write_state(folder, {"moments": moments(self.optimizer, self.bare), "scaler": self.scaler.state_dict()})
        return lambda: None

    def restore(self, checkpoint: Path) -> None:
        """The optimiser as it was, whichever engine saved it; the weights were there before `prepare`."""
        state = read_optimizer(checkpoint / "optimizer")
        set_moments(self.optimizer, self.bare, state["moments"])
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

    def close(self) -> None:
        """Part from the other ranks, after the last step."""


def compile_parts(model: nn.Module) -> None:
    """torch.compile for the model, and for the hot part of its heads, whose loop over chunks is better left alone."""
    model.compile()
    for head in (m for m in model.modules() if isinstance(m, Head)):
        head.take(torch.compile(slopes))
