"""What all engines of several processes share. It knows no objective and no data."""

from __future__ import annotations

import itertools
import os
import socket
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from tessera.config import MachineConfig
from tessera.errors import TesseraError
from tessera.machine.launch import die_with_the_launcher
from tessera.models import saved
from tessera.train.engines.single import SingleEngine

GROUPS = itertools.count()
"""Numbers the groups of this process, which is the same number in all that join."""


def join(machine: MachineConfig) -> tuple[int, int, str]:
    """Meet the other processes; returns rank, world and this process's device."""
    if "RANK" not in os.environ:  # started without a launcher: a world of one
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update({**alone, "MASTER_PORT": str(_free_port())})
    die_with_the_launcher()
    wants_gpu = machine.device == "cuda" or (machine.device == "auto" and torch.cuda.is_available())
    local = int(os.environ.get("LOCAL_RANK", 0))
    if not dist.is_initialized():
        # A rank that dies is noticed by the launcher at once; this bounds the wait for one that hangs.
        patience = timedelta(minutes=10)
        store, rank, world = next(rendezvous("env://", timeout=patience))
        # The launcher's store outlives a restart, and every group; what others left in it must not be found.
        store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}-{next(GROUPS)}", store)
        dist.init_process_group(
            "nccl" if wants_gpu else "gloo", store=store, rank=rank, world_size=world, timeout=patience
        )
    if wants_gpu:
        torch.cuda.set_device(local)
    return dist.get_rank(), dist.get_world_size(), f"cuda:{local}" if wants_gpu else machine.device


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class ProcessGroupEngine(SingleEngine):
    """Several processes that torch's own process group joins."""

    def __init__(self, machine: MachineConfig):
        self.rank, self.world, device = join(machine)  # type: ignore[misc]
        super().__init__(replace(machine, device=device))

    def all_reduce_mean(self, x: Tensor) -> Tensor:
        total = x.detach().to(self.device, torch.float64 if self.device.type != "mps" else torch.float32)
        dist.all_reduce(total)
        return (total / self.world).to(x.dtype)

    def least(self, x: float) -> float:
        found = torch.tensor(x, dtype=torch.float64, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return float(found)

    def barrier(self) -> None:
        dist.barrier()

    def assert_replicas_equal(self, value: float, what: str) -> None:
        pair = torch.tensor([value, -value], dtype=torch.float64, device=self.device)
        dist.all_reduce(pair, dist.ReduceOp.MAX)
        if pair[0] != -pair[1] and not (value != value):
            raise TesseraError(
                f"The ranks disagree about {what}: {value!r} on rank {self.rank}, {-float(pair[1])!r} to "
                f"{float(pair[0])!r} over all {self.world}. They must see the same data and hold the same weights; "
                "look for a folder that differs between machines, or for failing memory."
            )

    def close(self) -> None:
        self.trainees.clear()  # DDP's reducer, were it the last to hold the group, would wait for it with Python locked
        dist.destroy_process_group()  # or its threads may outlive what they use


def whole_copy(trainee: Any) -> nn.Module:
    """A copy of a network whose weights lie on several ranks; only the first rank's is filled."""
    weights = trainee.weights()
    copy = saved.network(trainee.bare.config).to(trainee.engine.device).eval()
    copy.load_state_dict(weights, strict=False)
    return copy


def runs_layers_again(config: Any) -> bool:
    """Whether one backward pass comes to a layer's weights several times: shared layers in reversible wiring."""
    t = getattr(config, "transformer", None)
    return bool(t and t.reversible and (t.shared_attn or t.shared_ff))
