"""What the loop asks of every kind of model, and what all of them do alike. It knows no engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from tessera.config import OptimConfig, TrainConfig
from tessera.data.batches import Batch, Captions, NoCaptions, Packed, Pictures, plain_batches, stream
from tessera.data.codes import Codes
from tessera.data.sources import Pair
from tessera.errors import ConfigError
from tessera.tokens.image import ImageTokenizer
from tessera.tokens.text import TextTokenizer

Parts = dict[str, Tensor]
Models = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Data:
    """What a run learns from."""

    pairs: list[Pair]
    held: list[Pair]
    """Never learned from; their loss is the held-out loss."""
    skipped: int
    """How many pictures were left out."""
    codes: Codes | None = None
    """Where the pictures were encoded beforehand."""


class Tokenizers(Protocol):
    """The tokenizers that a run stands on, each read when it is asked for."""

    def text(self, pairs: list[Pair]) -> TextTokenizer: ...
    def image(self) -> ImageTokenizer: ...


class Objective(Protocol):
    """Data, and the networks that learn from it.

    networks: every network that learns, by name; the first is the one that is drawn from.
    optim: how a network's weights move.
    prepare: read the tokenizers that this kind of model needs, fill in the sizes that the settings left to them, and
        make the model. Raises TesseraError for everything that can be wrong with them.
    losses: each network's loss by its name, whose gradient must reach that network alone, and more numbers to log.
        `models` are the networks as the engine has wrapped them.
    held_losses: held-out numbers; "loss" is the one that decides which checkpoint is best.
    """

    config: TrainConfig
    pairs: list[Pair]
    held: list[Pair]
    skipped: int
    model: Any
    """The first of the networks."""
    encoder: Any
    image: Any
    text: Any

    @property
    def networks(self) -> dict[str, nn.Module]: ...
    @classmethod
    def prepare(cls, config: TrainConfig, data: Data, tokenizers: Tokenizers) -> Self: ...
    def optim(self, name: str) -> OptimConfig: ...
    def place(self, device: torch.device) -> None: ...
    def chance(self, batch: Batch) -> Batch: ...
    def batches(self, start: int, rank: int = 0, world: int = 1) -> Iterator[Batch]: ...
    def held_batches(self, rank: int = 0, world: int = 1) -> Iterator[tuple[Batch, int]]: ...
    def losses(self, models: Models, batch: Batch, done: float) -> tuple[Parts, Parts]: ...
    def held_losses(self, models: Models, batch: Batch) -> Parts: ...
    def held_codes(self) -> list[Tensor]: ...
    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None: ...


class Paired:
    """What all objectives do alike: batches of pairs, by rank, and held-out ones; one network, "model", learns."""

    model: Any
    source: Pictures | Packed
    held_source: Pictures | Packed

    encoder: Any = None
    """The config of the image tokenizer that encodes in the step, where one does."""
    image: Any = None
    text: Any = None
    """The tokenizers, where there are some."""

    def __init__(self, config: TrainConfig, data: Data):
        self.config, self.pairs, self.held, self.skipped = config, data.pairs, data.held, data.skipped
        torch.manual_seed(config.seed)  # of the fresh weights, which are made next

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"model": self.model}

    def optim(self, name: str) -> OptimConfig:
        return self.config.optim

    def place(self, device: torch.device) -> None: ...

    def chance(self, batch: Batch) -> Batch:
        """What chance does to a batch on its way, before it is split, so that the split changes nothing."""
        return batch

    def batches(self, start: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        c, plan = self.config, (start, rank, world)
        return stream(self.source, len(self.pairs), c.optim.batch, c.seed, *plan, workers=self.workers)

    def held_batches(self, rank: int = 0, world: int = 1) -> Iterator[tuple[Batch, int]]:
        rows = max(1, self.config.optim.batch // self.config.optim.accumulate)  # no more at a time than in training
        return plain_batches(self.held_source, len(self.held), rows, rank, world)

    @property
    def workers(self) -> int:
        return 0 if isinstance(self.source, Packed) else self.config.data.workers  # packed codes need no work

    def captions(self, text: TextTokenizer, length: int) -> list[Captions]:
        """Of the pairs that are learned and those that are held out."""
        return [Captions(pairs, text, length, self.config.data.truncate) for pairs in (self.pairs, self.held)]

    def pictures(self, captions: list[Captions] | list[NoCaptions], pixels: int, channels: int) -> list[Pictures]:
        """Both, read from their files."""
        both = zip((self.pairs, self.held), captions, strict=True)
        return [Pictures(p, self.config.data, pixels, channels, self.config.seed, c) for p, c in both]


def floats(pixels: Tensor) -> Tensor:
    """uint8 -> 0 ... 1, channels last."""
    return pixels.to(torch.float32, memory_format=torch.channels_last) / 255


LONGEST = 256
"""Text positions that are chosen without being asked for."""


def resolve(config: TrainConfig, data: Data, found: Mapping[str, int], text: TextTokenizer) -> TrainConfig:
    """The settings with the sizes that the tokenizers and the captions decide. Raises ConfigError where the settings
    ask for others."""
    model: Any = config.model
    found = {"text_vocab": text.vocab, **found}
    for name, value in found.items():
        if (asked := getattr(model, name)) not in (0, value):
            raise ConfigError(
                f"model.{name.replace('_', '-')} is {asked}, but the tokenizer has {value}; leave it at 0."
            )
    length = model.text_len
    if not length:
        longest = max(len(text.encode(c)) for p in data.pairs + data.held for c in p.captions)
        length = min(-(-longest // 8) * 8, LONGEST)
    return dataclasses.replace(config, model=dataclasses.replace(model, **found, text_len=length))
