"""What the loop asks of every kind of model, and what all of them do alike. It knows no engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tessera.config import TrainConfig
from tessera.data.batches import Batch, Captions, Packed, Pictures, plain_batches, stream
from tessera.data.sources import Pair
from tessera.tokens.image import ImageTokenizer

Parts = dict[str, Tensor]


class Objective(Protocol):
    """`model` is called through the engine, which may have wrapped it; `loss` gets it as an argument."""

    config: TrainConfig
    pairs: list[Pair]
    held: list[Pair]
    skipped: int

    model: Any

    @property
    def encoder(self) -> Any: ...
    @property
    def image(self) -> ImageTokenizer | None: ...
    def place(self, device: torch.device) -> None: ...
    def chance(self, batch: Batch) -> Batch: ...
    def batches(self, start: int, rank: int = 0, world: int = 1) -> Iterator[Batch]: ...
    def held_batches(self, rank: int = 0, world: int = 1) -> Iterator[tuple[Batch, int]]: ...
    def loss(self, model: nn.Module, batch: Batch, done: float) -> tuple[Tensor, Parts]: ...
    def held_loss(self, model: nn.Module, batch: Batch) -> Parts: ...
    def held_codes(self) -> list[Tensor]: ...
    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None: ...


class Paired:
    """What all objectives do alike: batches of pairs, by rank, and held-out ones."""

    config: TrainConfig
    pairs: list[Pair]
    held: list[Pair]
    source: Pictures | Packed
    held_source: Pictures | Packed

    encoder: Any = None
    """The config of the image tokenizer that encodes in the step, where one does."""

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


def floats(pixels: Tensor) -> Tensor:
    """uint8 -> 0 ... 1, channels last."""
    return pixels.to(torch.float32, memory_format=torch.channels_last) / 255


def _pictures(config: TrainConfig, pairs: list[Pair], captions: Captions, pixels: int, channels: int) -> Pictures:
    return Pictures(pairs, config.data, pixels, channels, config.seed, captions)
