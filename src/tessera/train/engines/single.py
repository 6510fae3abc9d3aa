"""One process on one device. It knows no objective and no data."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from tessera.config import MachineConfig
from tessera.machine.device import choose_device, compiles, computes_bf16, tune
from tessera.machine.threads import choose_threads
from tessera.nn.loss import Head, slopes
from tessera.store.state import write_state
from tessera.train.engines.protocol import MakeOptimizer
from tessera.train.moments import moments, set_moments, whole
from tessera.train.optim import Average
from tessera.train.recompute import economise
from tessera.train.sharded import read_optimizer


class SingleTrainee:
    """A network that this process holds whole: float32 weights, bf16 autocast where asked."""

    memory_format = torch.channels_last
    """Convolutions run faster with channels last; other weights are left alone by it."""

    def __init__(
        self, engine: SingleEngine, network: nn.Module, make_optimizer: MakeOptimizer, clip: float, ema: float
    ):
        self.engine = weakref.proxy(engine)  # so that the memory of a network goes with its engine
        self.clip = clip or float("inf")
        self.bare = network.to(engine.device, memory_format=self.memory_format).train()  # type: ignore[call-overload]
        economise(self.bare, engine.machine.recompute)
        # float16 has few small numbers: its gradients are scaled up, its weights stay float32.
        self.scaler = torch.amp.GradScaler(engine.device.type, enabled=engine.dtype == torch.float16)
        self.prepare(make_optimizer)
        self.average = Average(self.masters(), ema)

    def prepare(self, make_optimizer: MakeOptimizer) -> None:
        """Make the optimiser, and what is called in training."""
        self.model, self.optimizer = self.bare, make_optimizer(self.bare)
        if self.engine.compiles:
            compile_parts(self.bare)

    def masters(self) -> list[Tensor]:
        """This rank's weights, as the optimiser moves them."""
        return list(self.bare.parameters())

    def micro(self, last: bool) -> AbstractContextManager:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def norm(self) -> Tensor:
        self.scaler.unscale_(self.optimizer)
        return whole(torch.nn.utils.clip_grad_norm_(self.bare.parameters(), self.clip))

    def apply(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("times", 1.0)
        self.scaler.step(self.optimizer)
        self.average.update()
        self.discard()

    def discard(self) -> None:
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def averaged(self) -> AbstractContextManager:
        return self.average.swapped(self.follow)

    def follow(self) -> None:
        """Let what the forward pass uses follow weights that no step has moved."""

    def reader(self) -> nn.Module:
        return self.bare

    def weights(self) -> dict[str, Tensor]:
        return dict(self.bare.state_dict())

    def load(self, weights: Mapping[str, Tensor]) -> None:
        self.bare.load_state_dict(weights)

    def save(self, folder: Path) -> Future | None:
        if self.engine.rank == 0:
            write_state(folder, {"moments": moments(self.optimizer, self.bare), "scaler": self.scaler.state_dict()})

    def restore(self, folder: Path) -> None:
        """The optimiser as it was, whichever engine saved it."""
        state = read_optimizer(folder)
        set_moments(self.optimizer, self.bare, state["moments"])
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])


class SingleEngine:
    """One process, one device."""

    name = "single"
    rank, world, replicated = 0, 1, True
    trainee: type[SingleTrainee] = SingleTrainee
    """What a network becomes here."""

    def __init__(self, machine: MachineConfig, adapts: bool = False):
        """`adapts`: the run depends on the clock anyhow, so that its threads may follow how busy the machine is."""
        self.machine, self.device = machine, choose_device(machine.device)
        self.threads = choose_threads(machine.threads, adapts and self.device.type == "cpu")
        tune(self.device)
        wanted = machine.precision == "bf16" or (machine.precision == "auto" and computes_bf16(self.device))
        self.dtype = torch.bfloat16 if wanted else torch.float16 if machine.precision == "fp16" else torch.float32
        self.compiles = compiles(machine.compile, self.device)
        self.trainees: dict[str, SingleTrainee] = {}

    def add(
        self, network: nn.Module, optimizer: MakeOptimizer, clip: float = 0.0, ema: float = 0.0, name: str = "model"
    ) -> SingleTrainee:
        self.trainees[name] = self.trainee(self, network, optimizer, clip, ema)
        return self.trainees[name]

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def step(self, rates: Mapping[str, float]) -> dict[str, Tensor]:
        norms = {name: trainee.norm() for name, trainee in self.trainees.items()}
        finite = all(norm.isfinite() for norm in norms.values())
        for name, trainee in self.trainees.items():
            trainee.apply(rates[name]) if finite else trainee.discard()
        self.threads.tick()
        return norms

    def redo(self) -> bool:
        for trainee in self.trainees.values():
            trainee.optimizer.zero_grad(set_to_none=True)
        return self.world == 1

    def all_reduce_mean(self, x: Tensor) -> Tensor:
        return x

    def least(self, x: float) -> float:
        return x

    def barrier(self) -> None: ...

    def assert_replicas_equal(self, value: float, what: str) -> None: ...

    def close(self) -> None: ...


def compile_parts(model: nn.Module) -> None:
    """torch.compile for the model, and for the hot part of its heads, whose loop over chunks is better left alone."""
    model.compile()
    for head in (m for m in model.modules() if isinstance(m, Head)):
        head.take(torch.compile(slopes))
