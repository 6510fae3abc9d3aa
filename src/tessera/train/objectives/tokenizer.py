"""What training any image tokenizer has in common: pictures without captions, and codes that must stay varied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from tessera.config import TrainConfig
from tessera.data.batches import Batch, NoCaptions
from tessera.data.split import Data
from tessera.models import saved
from tessera.tokens.image import Frozen, ImageTokenizer
from tessera.train.objectives.protocol import Objective, Tokenizers, floats


class TrainTokenizer(Objective):
    """Reconstruct pictures through their codes. The held-out "loss" is that of the hard codes, without noise."""

    def __init__(self, config: TrainConfig, data: Data):
        super().__init__(config, data)
        c: Any = config.model
        self.model = saved.network(c)
        self.source, self.held_source = self.pictures([NoCaptions(), NoCaptions()], c.pixels, c.channels)

    @classmethod
    def prepare(cls, config: TrainConfig, data: Data, tokenizers: Tokenizers) -> Self:
        return cls(config, data)

    @property
    def image(self) -> ImageTokenizer:
        return Frozen(self.model)

    def temperature(self, done: float) -> float:
        """Of the quantizer: a function of progress alone."""
        return self.model.config.quantizer.temperature_at(done)

    def codes(self, batch: Batch) -> Tensor:
        return self.model.encode(floats(batch.pixels))

    def held_codes(self) -> list[Tensor]:
        return [self.codes(batch) for batch, _ in self.held_batches()]

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        saved.write(folder, self.model, weights)


def perplexity(codes: Tensor) -> Tensor:
    """How many codes, used equally, would be as varied as a batch's; 1 where all have become one."""
    share = torch.bincount(codes.flatten()).float() / codes.numel()
    return torch.special.entr(share).sum().exp()
