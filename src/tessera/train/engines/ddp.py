"""The whole model on every rank (DistributedDataParallel)."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, ExitStack

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tessera.train.engines.group import Several, runs_layers_again
from tessera.train.engines.protocol import MakeOptimizer


class Replicated(Several):
    """Every rank holds the whole model; gradients are averaged (DistributedDataParallel)."""

    name = "ddp"

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
