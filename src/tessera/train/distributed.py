"""Engines of several processes: replicated (DDP) and sharded (FSDP2). It knows no objective and no data."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import distribute_tensor

from tessera.config import MachineConfig
from tessera.errors import TesseraError
from tessera.machine.launch import die_with_the_launcher
from tessera.models import saved
from tessera.nn.attention import Attention
from tessera.nn.stack import Branch, FeedForward, economise
from tessera.train.engine import MakeOptimizer, Single, read_optimizer
from tessera.train.optim import clean, moments, set_moments


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
        # The launcher's store outlives a restart; addresses of the workers before must not be found in it.
        store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
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


class Several(Single):
    """What all engines of several processes share."""

    def __init__(self, machine: MachineConfig):
        self.rank, self.world, device = join(machine)  # type: ignore[misc]
        super().__init__(machine.__class__(**{**machine.__dict__, "device": device}))

    def mean(self, x: Tensor) -> Tensor:
        """Over ranks."""
        total = x.detach().to(self.device, torch.float64 if self.device.type != "mps" else torch.float32)
        dist.all_reduce(total)
        return (total / self.world).to(x.dtype)

    def least(self, x: float) -> float:
        found = torch.tensor(x, dtype=torch.float64, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return float(found)

    def barrier(self) -> None:
        dist.barrier()

    def same(self, value: float, what: str) -> None:
        """Raises TesseraError where ranks differ in `value`."""
        pair = torch.tensor([value, -value], dtype=torch.float64, device=self.device)
        dist.all_reduce(pair, dist.ReduceOp.MAX)
        if pair[0] != -pair[1] and not (value != value):
            raise TesseraError(
                f"The ranks disagree about {what}: {value!r} on rank {self.rank}, {-float(pair[1])!r} to "
                f"{float(pair[0])!r} over all {self.world}. They must see the same data and hold the same weights; "
                "look for a folder that differs between machines, or for failing memory."
            )

    def save(self, folder: Path) -> Callable[[], None]:
        return super().save(folder) if self.rank == 0 else lambda: None

    def close(self) -> None:
        dist.destroy_process_group()  # or its threads may outlive what they use

    def whole_copy(self, config: Any) -> nn.Module:
        """A copy with all weights; only the first rank's is filled."""
        weights = self.weights()
        copy = saved.network(config).to(self.device).eval()
        copy.load_state_dict(weights, strict=False)
        return copy


def runs_layers_again(config: Any) -> bool:
    """Whether one backward pass comes to a layer's weights several times: shared layers in reversible wiring."""
    t = getattr(config, "transformer", None)
    return bool(t and t.reversible and (t.shared_attn or t.shared_ff))


class Replicated(Several):
    """Every rank holds the whole model; gradients are averaged (DistributedDataParallel)."""

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> None:
        super().prepare(model, make_optimizer)
        # The reversible backward runs a shared layer several times, which DDP's bookkeeping refuses.
        self.by_hand = runs_layers_again(model.config)
        if not self.by_hand:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # 2.13 has another name for it, 2.11 only this one
                wrapped = nn.parallel.DistributedDataParallel(self.bare, broadcast_buffers=False)
            self.model = wrapped  # type: ignore[assignment]

    def micro(self, last: bool) -> AbstractContextManager:
        stack = ExitStack()
        stack.enter_context(super().micro(last))
        if not last and isinstance(self.model, nn.parallel.DistributedDataParallel):
            # DDP decides in the forward pass whether the backward pass will synchronise.
            stack.enter_context(self.model.no_sync())
        return stack

    def step(self, max_norm: float, rate: float) -> Tensor:
        if self.by_hand:
            gradients = [p.grad for p in self.bare.parameters() if p.grad is not None]
            flat = torch.cat([g.flatten() for g in gradients])
            dist.all_reduce(flat)
            for g, mean in zip(gradients, (flat / self.world).split([g.numel() for g in gradients]), strict=True):
                g.copy_(mean.view_as(g))
        return super().step(max_norm, rate)


class Sharded(Several):
    """Weights, gradients and optimiser state are cut up over ranks (FSDP2, `fully_shard`)."""

    replicated = False

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> None:
        self.config: Any = model.config
        self.bare = self.model = model.to(self.device).train()
        economise(model, self.machine.recompute)
        low = self.dtype if self.dtype != torch.float32 else None
        policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
        counts: dict[int, int] = {}
        for branch in (m for m in model.modules() if isinstance(m, Branch)):
            counts[id(branch.fn)] = counts.get(id(branch.fn), 0) + 1
        for module in list(model.modules()):
            # A layer that several branches share is a unit of its own, so that none of them owns it.
            shared = isinstance(module, Attention | FeedForward) and counts.get(id(module), 0) > 1
            if shared:
                fully_shard(module, mp_policy=policy)
        for module in list(model.modules()):
            # A branch is a unit, because the reversible backward runs it alone.
            if isinstance(module, Branch):
                fully_shard(module, mp_policy=policy)
        fully_shard(model, mp_policy=policy)
        for method in ("encode", "decode"):
            if hasattr(model, method):
                register_fsdp_forward_method(model, method)
        self.optimizer = make_optimizer(self.bare)
        self.saving: Any = dist.new_group(
            backend="gloo"
        )  # saves in the background must not meet training's collectives

    def micro(self, last: bool) -> AbstractContextManager:
        self.model.set_requires_gradient_sync(last)  # type: ignore[operator]
        return super().micro(last)

    def reader(self) -> nn.Module:
        return self.whole_copy(self.config)

    def weights(self) -> dict[str, Tensor]:
        found = {}
        for name, value in self.bare.state_dict().items():
            full = value.full_tensor() if hasattr(value, "full_tensor") else value
            if self.rank == 0:
                found[clean(name)] = full.cpu()
        return found

    def save(self, folder: Path) -> Callable[[], None]:
        """Each rank writes its own shards, in the background."""
        flat = {f"{n}|{k}": v for n, m in moments(self.optimizer, self.bare).items() for k, v in m.items()}
        if not flat:
            return Single.save(self, folder) if self.rank == 0 else lambda: None
        return Written(dcp.async_save(flat, checkpoint_id=folder, process_group=self.saving))

    def restore(self, checkpoint: Path) -> None:
        named: dict[str, Any] = {clean(n): p for n, p in self.bare.named_parameters()}
        whole_moments = read_optimizer(checkpoint / "optimizer")["moments"]
        cut = {n: {k: self._cut(v, named[n]) if v.ndim else v for k, v in m.items()} for n, m in whole_moments.items()}
        set_moments(self.optimizer, self.bare, cut)

    def _cut(self, value: Tensor, like: Any) -> Tensor:
        return distribute_tensor(value.to(self.device), like.device_mesh, like.placements)


class Written:
    """Waits for shards that are written in the background."""

    def __init__(self, future: Any):
        self.future, self.done = future, future.done

    def __call__(self) -> None:
        self.future.result()
