"""Training the judge: tell a picture's caption from others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from torch import Tensor

from tessera.config import CLIPConfig, TrainConfig
from tessera.data.batches import Batch
from tessera.data.split import Data
from tessera.models import saved
from tessera.models.clip import CLIP
from tessera.tokens.image import ImageTokenizer
from tessera.tokens.text import TextTokenizer
from tessera.train.objectives.protocol import Models, Objective, Parts, Tokenizers, floats
from tessera.train.objectives.sizes import resolve


class TrainCLIP(Objective):
    """Tell a picture's caption from those of the others in its batch. Held-out batches are as large."""

    text: TextTokenizer
    image: ImageTokenizer | None = None

    def __init__(self, config: TrainConfig, data: Data, text: TextTokenizer):
        super().__init__(config, data)
        m = config.model
        assert isinstance(m, CLIPConfig)
        self.text, self.model = text, CLIP(m)
        self.source, self.held_source = self.pictures(self.captions(text, m.text_len), m.pixels, m.channels)

    @classmethod
    def prepare(cls, config: TrainConfig, data: Data, tokenizers: Tokenizers) -> Self:
        text = tokenizers.text(data.pairs)
        return cls(resolve(config, data, {}, text), data, text)

    def losses(self, models: Models, batch: Batch, done: float) -> tuple[Parts, Parts]:
        total, accuracy = models["model"](batch.tokens, floats(batch.pixels))
        return {"model": total}, {"accuracy": accuracy}

    def held_losses(self, models: Models, batch: Batch) -> Parts:
        total, accuracy = models["model"](batch.tokens, floats(batch.pixels))
        return {"loss": total, "accuracy": accuracy}

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        saved.write(folder, self.model, weights)
        self.text.save(folder / "text_tokenizer")
