"""Weights, gradients and optimiser state cut up over ranks (FSDP2)."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import distribute_tensor

from tessera.nn.attention import Attention
from tessera.nn.stack import Branch, FeedForward
from tessera.train.engines.group import ProcessGroupEngine, whole_copy
from tessera.train.engines.protocol import MakeOptimizer
from tessera.train.engines.single import SingleTrainee
from tessera.train.moments import clean, moments, set_moments, whole
from tessera.train.sharded import read_optimizer


class FSDPTrainee(SingleTrainee):
    """A network of which each rank holds a part (`fully_shard`)."""

    memory_format = torch.preserve_format

    def prepare(self, make_optimizer: MakeOptimizer) -> None:
        low = self.engine.dtype if self.engine.dtype != torch.float32 else None
        policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for unit in units(self.bare):
            fully_shard(unit, mp_policy=policy)
        for method in ("encode", "decode"):
            if hasattr(self.bare, method):
                register_fsdp_forward_method(self.bare, method)
        self.model, self.optimizer = self.bare, make_optimizer(self.bare)
        self.named: dict[str, Any] = {clean(n): p for n, p in self.bare.named_parameters()}
        # Saves in the background must not meet the collectives of training, nor those of other networks.
        self.saving: Any = dist.new_group(backend="gloo")

    def micro(self, last: bool) -> AbstractContextManager:
        self.model.set_requires_gradient_sync(last)  # type: ignore[operator]
        return nullcontext()

    def follow(self) -> None:
        for module in self.bare.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # lets go of what a forward pass without a backward pass has gathered

    def reader(self) -> nn.Module:
        return whole_copy(self)

    def weights(self) -> dict[str, Tensor]:
        found = {}
        for name, value in self.bare.state_dict().items():
            full = whole(value)
            if self.engine.rank == 0:
                found[clean(name)] = full.cpu()
        return found

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        for name, p in self.named.items():
            p.copy_(self._cut(weights[name], p))
        self.follow()

    def save(self, folder: Path) -> Future | None:
        """Each rank writes its own shards, in the background."""
        flat = {f"{n}|{k}": v for n, m in moments(self.optimizer, self.bare).items() for k, v in m.items()}
        if not flat:
            return super().save(folder)
        return dcp.async_save(flat, checkpoint_id=folder, process_group=self.saving)  # type: ignore[return-value]

    def restore(self, folder: Path) -> None:
        whole_moments = read_optimizer(folder)["moments"]
        cut = {
            n: {k: self._cut(v, self.named[n]) if v.ndim else v for k, v in m.items()} for n, m in whole_moments.items()
        }
        set_moments(self.optimizer, self.bare, cut)

    def _cut(self, value: Tensor, like: Any) -> Tensor:
        return distribute_tensor(value.to(self.engine.device), like.device_mesh, like.placements)


def units(network: nn.Module) -> list[nn.Module]:
    """What is gathered at a time, the inner ones first: layers that several branches share, so that none of them owns
    such a layer; then branches, because the reversible backward runs each alone; then all that is left."""
    branches = [m for m in network.modules() if isinstance(m, Branch)]
    uses = [id(branch.fn) for branch in branches]
    shared = [m for m in network.modules() if isinstance(m, Attention | FeedForward) and uses.count(id(m)) > 1]
    return [*shared, *branches, network]


class FSDPEngine(ProcessGroupEngine):
    """Weights, gradients and optimiser state are cut up over ranks."""

    name = "fsdp"
    replicated = False
    trainee = FSDPTrainee
