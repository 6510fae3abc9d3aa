"""Weights, gradients and optimiser state cut up over ranks (FSDP2)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import distribute_tensor

from tessera.nn.attention import Attention
from tessera.nn.stack import Branch, FeedForward, economise
from tessera.train.engines.group import Several
from tessera.train.engines.protocol import MakeOptimizer
from tessera.train.engines.single import Single
from tessera.train.moments import clean, moments, set_moments
from tessera.train.sharded import read_optimizer


class Sharded(Several):
    """Weights, gradients and optimiser state are cut up over ranks (FSDP2, `fully_shard`)."""

    name = "fsdp"
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
