"""Training the judge: tell a picture's caption from others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tessera.config import CLIPConfig, TrainConfig
from tessera.data.batches import Batch, Captions
from tessera.data.sources import Pair
from tessera.models import saved
from tessera.models.clip import CLIP
from tessera.tokens.image import ImageTokenizer
from tessera.tokens.text import TextTokenizer
from tessera.train.objectives.protocol import Paired, Parts, _pictures, floats


class TrainCLIP(Paired):
    """Tell a picture's caption from those of the others in its batch. Held-out batches are as large."""

    image: ImageTokenizer | None = None

    def __init__(self, config: TrainConfig, pairs: list[Pair], held: list[Pair], skipped: int, text: TextTokenizer):
        m = config.model
        assert isinstance(m, CLIPConfig)
        self.config, self.pairs, self.held, self.skipped, self.text = config, pairs, held, skipped, text
        torch.manual_seed(config.seed)
        self.model = CLIP(m)
        captions = [Captions(p, text, m.text_len, config.data.truncate) for p in (pairs, held)]
        both = zip((pairs, held), captions, strict=True)
        self.source, self.held_source = [_pictures(config, p, c, m.pixels, m.channels) for p, c in both]

    def loss(self, model: nn.Module, batch: Batch, done: float) -> tuple[Tensor, Parts]:
        total, accuracy = model(batch.tokens, floats(batch.pixels))
        return total, {"accuracy": accuracy}

    def held_loss(self, model: nn.Module, batch: Batch) -> Parts:
        total, accuracy = model(batch.tokens, floats(batch.pixels))
        return {"loss": total, "accuracy": accuracy}

    def held_codes(self) -> list[Tensor]:
        return []

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        saved.write(folder, self.model, weights)
        self.text.save(folder / "text_tokenizer")
