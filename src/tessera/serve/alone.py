"""Pictures that a model draws each by itself, a step of each at a time: around what a mask keeps, or in another order
than reading order. It does not know clients, prompts or pixels."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tessera.generate.decoder import Decoder, DrawingBatch, Drawn, Progress


@dataclass(eq=False)
class Filling:
    """One picture while it is drawn."""

    batch: DrawingBatch
    """Of this picture alone."""
    done: int = 0
    """Codes that it has, given ones included."""
    codes: Int[Tensor, "1 N"] = field(init=False)
    mask: Bool[Tensor, "1 N"] = field(init=False)
    """Codes that are still to be drawn."""
    steps: Generator[Progress, None, Drawn] = field(init=False)

    def __post_init__(self) -> None:
        self.codes, self.mask = self.batch.known, self.batch.mask.expand(self.batch.known.shape)
        self.done = int((~self.mask).sum())

    @property
    def seed(self) -> int:
        return self.batch.seeds[0]


class Alone:
    """Those that are being drawn."""

    def __init__(self, decoder: Decoder):
        self.decoder, self.drawings = decoder, list[Filling]()

    def sit(self, filling: Filling) -> None:
        """Begin to draw it. A picture of which nothing is drawn is done at once."""
        filling.steps = self.decoder.steps(filling.batch)
        self.drawings.append(filling)
        self._advance(filling)

    def step(self) -> None:
        """One step of each."""
        for filling in self.drawings:
            self._advance(filling)

    def _advance(self, filling: Filling) -> None:
        try:
            progress = next(filling.steps)
            filling.codes, filling.done = progress.codes, progress.done
            filling.mask = progress.mask.expand(progress.codes.shape)
        except StopIteration as end:
            filling.codes, filling.done = end.value.codes, filling.codes.shape[1]
            filling.mask = torch.zeros_like(filling.mask)

    def canvas(self, filling: Filling) -> tuple[Int[Tensor, "1 N"], Bool[Tensor, "1 N"]]:
        """Its codes, and which of them are still to be drawn."""
        return filling.codes, filling.mask

    def leave(self, filling: Filling) -> None:
        """Free what it holds."""
        filling.steps.close()
        self.drawings.remove(filling)

    def clear(self) -> None:
        for filling in list(self.drawings):
            self.leave(filling)
