"""Training the prior: predict captions and codes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from tessera.config import TextToImageConfig, TrainConfig
from tessera.data.batches import Batch, Packed
from tessera.data.split import Data
from tessera.models import saved
from tessera.tokens.image import ImageTokenizer
from tessera.tokens.text import TextTokenizer
from tessera.train.objectives.fresh import prior
from tessera.train.objectives.protocol import Models, Objective, Parts, Tokenizers, floats
from tessera.train.objectives.sizes import resolve


class TrainTextToImage(Objective):
    """Predict captions and codes. The held-out "loss" is the image part: nats per code."""

    def __init__(self, config: TrainConfig, data: Data, text: TextTokenizer, image: ImageTokenizer):
        super().__init__(config, data)
        assert isinstance(config.model, TextToImageConfig)
        self.text, self.image = text, image
        self.model = prior(config, image)
        captions = self.captions(text, config.model.text_len)
        if codes := data.codes:
            both = zip((data.pairs, data.held), captions, strict=True)
            self.source, self.held_source = [Packed(codes.only(p), c, config.seed) for p, c in both]
        else:
            self.source, self.held_source = self.pictures(captions, image.pixels, image.channels)
            self.encoder = image.config

    @classmethod
    def prepare(cls, config: TrainConfig, data: Data, tokenizers: Tokenizers) -> Self:
        text, image = tokenizers.text(data.pairs), tokenizers.image()
        sizes = {"image_vocab": image.vocab, "grid": image.grid}
        return cls(resolve(config, data, sizes, text), data, text, image)

    def place(self, device: torch.device) -> None:
        self.image.to(device)

    def chance(self, batch: Batch) -> Batch:
        forgotten = torch.rand(len(batch.tokens)).to(batch.tokens.device) < self.config.optim.drop_condition
        return batch._replace(tokens=self.model.drop_captions(batch.tokens, forgotten))

    def losses(self, models: Models, batch: Batch, done: float) -> tuple[Parts, Parts]:
        total, text, image = models["model"](batch.tokens, self.codes(batch))
        return {"model": total}, {"text": text, "image": image}

    def held_losses(self, models: Models, batch: Batch) -> Parts:
        _, text, image = models["model"](batch.tokens, self.codes(batch))
        return {"loss": image, "text": text}

    def codes(self, batch: Batch) -> Tensor:
        return batch.codes if len(batch.codes) else self.image.encode(floats(batch.pixels))

    def held_codes(self) -> list[Tensor]:
        return [self.codes(batch) for batch, _ in self.held_batches()]

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        saved.write(folder, self.model, weights)
        self.image.save(folder / "image_tokenizer")
        self.text.save(folder / "text_tokenizer")
