"""Training the prior of any order: predict captions, and codes in orders of chance."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from tessera.config import AnyOrderConfig
from tessera.data.batches import Batch
from tessera.train.objectives.protocol import Models, Parts
from tessera.train.objectives.raster import TrainTextToImage


class TrainAnyOrder(TrainTextToImage):
    """As the raster prior is trained, but each picture of each step has an order of its own. The held-out "loss" is
    nats per code over orders that are the same each time."""

    def chance(self, batch: Batch) -> Batch:
        batch, model = super().chance(batch), self.config.model
        assert isinstance(model, AnyOrderConfig)
        chosen = orders(len(batch.tokens), model.grid**2)
        reading = torch.rand(len(chosen), 1) < model.raster_share
        return batch._replace(order=torch.where(reading, torch.arange(model.grid**2), chosen).to(batch.tokens.device))

    def losses(self, models: Models, batch: Batch, done: float) -> tuple[Parts, Parts]:
        total, text, image = models["model"](batch.tokens, self.codes(batch), batch.order)
        return {"model": total}, {"text": text, "image": image}

    def held_losses(self, models: Models, batch: Batch) -> Parts:
        codes = self.codes(batch)
        order = orders(len(codes), codes.shape[1], torch.Generator().manual_seed(self.config.seed)).to(codes.device)
        _, text, image = models["model"](batch.tokens, codes, order)
        return {"loss": image, "text": text}


def orders(count: int, places: int, noise: torch.Generator | None = None) -> Int[Tensor, "B N"]:
    """Permutations of the places; the i-th does not depend on how many follow."""
    return torch.rand(count, places, generator=noise).argsort(1)
