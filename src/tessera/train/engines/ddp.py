"""The whole network on every rank (DistributedDataParallel)."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tessera.train.engines.group import ProcessGroupEngine, runs_layers_again
from tessera.train.engines.protocol import MakeOptimizer
from tessera.train.engines.single import SingleTrainee


class DDPTrainee(SingleTrainee):
    """A network that every rank holds whole; gradients are averaged over ranks."""

    def prepare(self, make_optimizer: MakeOptimizer) -> None:
        super().prepare(make_optimizer)
        # The reversible backward runs a shared layer several times, which DDP's bookkeeping refuses.
        self.by_hand = runs_layers_again(getattr(self.bare, "config", None))
        if not self.by_hand:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # 2.13 has another name for it, 2.11 only this one
                self.model = nn.parallel.DistributedDataParallel(self.bare, broadcast_buffers=False)

    def micro(self, last: bool) -> AbstractContextManager:
        # DDP decides in the forward pass whether the backward pass will synchronise.
        whole = last or not isinstance(self.model, nn.parallel.DistributedDataParallel)
        return nullcontext() if whole else self.model.no_sync()  # type: ignore[operator]

    def norm(self) -> Tensor:
        if self.by_hand:
            gradients = [p.grad for p in self.bare.parameters() if p.grad is not None]
            flat = torch.cat([g.flatten() for g in gradients])
            dist.all_reduce(flat)
            means = (flat / self.engine.world).split([g.numel() for g in gradients])
            for g, mean in zip(gradients, means, strict=True):
                g.copy_(mean.view_as(g))
        return super().norm()


class DDPEngine(ProcessGroupEngine):
    """Every rank holds the whole network."""

    name = "ddp"
    trainee = DDPTrainee
