"""Training an image tokenizer: reconstruct pictures through their codes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from tessera.config import DVAEConfig, TrainConfig
from tessera.data.batches import Batch, NoCaptions
from tessera.data.split import Data
from tessera.models import saved
from tessera.models.dvae import DiscreteVAE
from tessera.tokens.image import Frozen, ImageTokenizer
from tessera.train.objectives.protocol import Models, Objective, Parts, Tokenizers, floats


class TrainDVAE(Objective):
    """Reconstruct pictures through their codes. The held-out "loss" is that of the hard codes, without noise."""

    def __init__(self, config: TrainConfig, data: Data):
        super().__init__(config, data)
        assert isinstance(config.model, DVAEConfig)
        self.model = DiscreteVAE(config.model)
        nothing = [NoCaptions(), NoCaptions()]
        self.source, self.held_source = self.pictures(nothing, config.model.pixels, config.model.channels)

    @classmethod
    def prepare(cls, config: TrainConfig, data: Data, tokenizers: Tokenizers) -> Self:
        return cls(config, data)

    @property
    def image(self) -> ImageTokenizer:
        return Frozen(self.model)

    def losses(self, models: Models, batch: Batch, done: float) -> tuple[Parts, Parts]:
        temperature = self.temperature(done)
        total, reconstruction, own, usage = models["model"](floats(batch.pixels), temperature)
        parts = {"reconstruction": reconstruction, "quantizer": own, "codes_used": usage}
        return {"model": total}, {**parts, "temperature": torch.tensor(temperature)}

    def temperature(self, done: float) -> float:
        """A function of progress alone."""
        return self.model.config.quantizer.temperature_at(done)

    def held_losses(self, models: Models, batch: Batch) -> Parts:
        pixels = floats(batch.pixels)
        wrong = (self.model.decode(self.model.encode(pixels)) - pixels) / self.model.std
        return {"loss": wrong.square().mean()}

    def codes(self, batch: Batch) -> Tensor:
        return self.model.encode(floats(batch.pixels))

    def held_codes(self) -> list[Tensor]:
        return [self.codes(batch) for batch, _ in self.held_batches()]

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        saved.write(folder, self.model, weights)
