"""What the loop asks of every kind of model, and what all of them do alike. It knows no engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from tessera.config import OptimConfig, TrainConfig
from tessera.data.batches import Batch, Captions, NoCaptions, Packed, Pictures, captions_of, plain_batches, stream
from tessera.data.sources import Pair
from tessera.data.split import Data
from tessera.tokens.image import ImageTokenizer
from tessera.tokens.text import TextTokenizer

Parts = dict[str, Tensor]
Models = Mapping[str, nn.Module]


class Tokenizers(Protocol):
    """The tokenizers that a run stands on, each read when it is asked for."""

    def text(self, pairs: list[Pair]) -> TextTokenizer: ...
    def image(self) -> ImageTokenizer: ...


class Objective(ABC):
    """Data, and the networks that learn from it: batches of pairs by rank, and held-out ones. One network, "model",
    learns, unless `networks` and `optim` say otherwise."""

    model: Any
    """The first of the networks, which is drawn from."""
    source: Pictures | Packed
    held_source: Pictures | Packed

    polishing = False
    """Whether it is past what the held-out loss can tell: the newest checkpoint is then the best."""
    encoder: Any = None
    """The config of the image tokenizer that encodes in the step, where one does."""
    image: Any = None
    text: Any = None
    """The tokenizers, where there are some."""

    def __init__(self, config: TrainConfig, data: Data):
        self.config, self.pairs, self.held, self.skipped = config, data.pairs, data.held, data.skipped
        torch.manual_seed(config.seed)  # of the fresh weights, which are made next

    @classmethod
    @abstractmethod
    def prepare(cls, config: TrainConfig, data: Data, tokenizers: Tokenizers) -> Self:
        """Read the tokenizers that this kind of model needs, fill in the sizes that the settings left to them, and
        make the model. Raises TesseraError for everything that can be wrong with them."""

    @abstractmethod
    def losses(self, models: Models, batch: Batch, done: float) -> tuple[Parts, Parts]:
        """Each network's loss by its name, whose gradient must reach that network alone, and more numbers to log.
        `models` are the networks as the engine has wrapped them."""

    @abstractmethod
    def held_losses(self, models: Models, batch: Batch) -> Parts:
        """Held-out numbers; "loss" is the one that decides which checkpoint is best."""

    @abstractmethod
    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write what drawing needs: the weights of the first network, and the tokenizers."""

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Every network that learns, by name."""
        return {"model": self.model}

    def optim(self, name: str) -> OptimConfig:
        """How a network's weights move."""
        return self.config.optim

    def place(self, device: torch.device) -> None:  # noqa: B027, most kinds have nothing to move
        """Move what does not learn to the device."""

    def chance(self, batch: Batch) -> Batch:
        """What chance does to a batch on its way, before it is split, so that the split changes nothing."""
        return batch

    def held_codes(self) -> list[Tensor]:
        """The codes of the held-out pictures, batch by batch, where there are codes."""
        return []

    def batches(self, start: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        c, plan = self.config, (start, rank, world)
        workers = 0 if isinstance(self.source, Packed) else c.data.workers  # packed codes need no work
        return stream(self.source, len(self.pairs), c.optim.batch, c.seed, *plan, workers=workers)

    def held_batches(self, rank: int = 0, world: int = 1) -> Iterator[tuple[Batch, int]]:
        rows = max(1, self.config.optim.batch // self.config.optim.accumulate)  # no more at a time than in training
        return plain_batches(self.held_source, len(self.held), rows, rank, world)

    def captions(self, text: TextTokenizer, length: int) -> list[Captions]:
        """Of the pairs that are learned and those that are held out."""
        return captions_of((self.pairs, self.held), text, length, self.config.data.truncate, self.config.noise)

    def pictures(self, captions: list[Captions] | list[NoCaptions], pixels: int, channels: int) -> list[Pictures]:
        """Both, read from their files."""
        both = zip((self.pairs, self.held), captions, strict=True)
        return [Pictures(p, self.config.data, pixels, channels, self.config.seed, c) for p, c in both]


def floats(pixels: Tensor) -> Tensor:
    """uint8 -> 0 ... 1, channels last."""
    return pixels.to(torch.float32, memory_format=torch.channels_last) / 255
