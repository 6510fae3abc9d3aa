"""Training the prior: predict captions and codes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tessera.config import TextToImageConfig, TrainConfig
from tessera.data.batches import Batch, Captions, Packed
from tessera.data.codes import Codes
from tessera.data.sources import Pair
from tessera.models import saved
from tessera.models.text_to_image import TextToImage
from tessera.tokens.image import ImageTokenizer
from tessera.tokens.text import TextTokenizer
from tessera.train.objectives.protocol import Paired, Parts, _pictures, floats


class TrainTextToImage(Paired):
    """Predict captions and codes. The held-out "loss" is the image part: nats per code."""

    def __init__(
        self,
        config: TrainConfig,
        pairs: list[Pair],
        held: list[Pair],
        skipped: int,
        text: TextTokenizer,
        image: ImageTokenizer,
        codes: Codes | None,
    ):
        m = config.model
        assert isinstance(m, TextToImageConfig)
        self.pairs, self.held, self.skipped, self.text, self.image = pairs, held, skipped, text, image
        captions = [Captions(p, text, m.text_len, config.data.truncate) for p in (pairs, held)]
        self.config = config
        torch.manual_seed(config.seed)
        self.model = TextToImage(m)
        if codes:
            sources = [Packed(codes.only(p), c, config.seed) for p, c in zip((pairs, held), captions, strict=True)]
        else:
            both = zip((pairs, held), captions, strict=True)
            sources = [_pictures(config, p, c, image.pixels, image.channels) for p, c in both]
        self.source, self.held_source = sources
        self.encoder = None if codes else image.config

    def place(self, device: torch.device) -> None:
        self.image.to(device)

    def chance(self, batch: Batch) -> Batch:
        forgotten = torch.rand(len(batch.tokens)).to(batch.tokens.device) < self.config.optim.drop_condition
        return batch._replace(tokens=self.model.drop_captions(batch.tokens, forgotten))

    def loss(self, model: nn.Module, batch: Batch, done: float) -> tuple[Tensor, Parts]:
        total, text, image = model(batch.tokens, self.codes(batch))
        return total, {"text": text, "image": image}

    def held_loss(self, model: nn.Module, batch: Batch) -> Parts:
        _, text, image = model(batch.tokens, self.codes(batch))
        return {"loss": image, "text": text}

    def codes(self, batch: Batch) -> Tensor:
        return batch.codes if len(batch.codes) else self.image.encode(floats(batch.pixels))

    def held_codes(self) -> list[Tensor]:
        return [self.codes(batch) for batch, _ in self.held_batches()]

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        saved.write(folder, self.model, weights)
        self.image.save(folder / "image_tokenizer")
        self.text.save(folder / "text_tokenizer")
