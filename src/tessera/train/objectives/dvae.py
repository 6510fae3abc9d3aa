"""Training the discrete VAE: reconstruct pictures through their codes."""

from __future__ import annotations

import torch

from tessera.data.batches import Batch
from tessera.train.objectives.protocol import Models, Parts, floats
from tessera.train.objectives.tokenizer import TrainTokenizer, perplexity


class TrainDVAE(TrainTokenizer):
    """By squared error alone."""

    def losses(self, models: Models, batch: Batch, done: float) -> tuple[Parts, Parts]:
        temperature = self.temperature(done)
        total, reconstruction, own, usage = models["model"](floats(batch.pixels), temperature)
        parts = {"reconstruction": reconstruction, "quantizer": own, "codes_used": usage}
        return {"model": total}, {**parts, "temperature": torch.tensor(temperature)}

    def held_losses(self, models: Models, batch: Batch) -> Parts:
        pixels = floats(batch.pixels)
        codes = self.model.encode(pixels)
        wrong = (self.model.decode(codes) - pixels) / self.model.std
        return {"loss": wrong.square().mean(), "perplexity": perplexity(codes)}
