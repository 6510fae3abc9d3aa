"""What draws codes: one protocol for reading order and for any other order. It does not know models or pixels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from tessera.config import SampleConfig


class DrawingBatch(NamedTuple):
    """Pictures that are drawn together. No decoder changes these tensors.

    known   3 1 4 . . . . .      given codes
    mask    - - - x x x x x      which codes to draw
    drawn   3 1 4 7 0 5 2 9
    """

    tokens: Int[Tensor, "B T"]
    known: Int[Tensor, "B N"]
    """What stands where the mask is True means nothing."""
    mask: Bool[Tensor, "*B N"]
    """[N], or [B, N] where pictures differ."""
    seeds: Sequence[int]
    sampling: SampleConfig


class Drawn(NamedTuple):
    """Codes, and how sure the model was of each by its guided logits, before temperature and filters. A decoder that
    does not measure that gives nan."""

    codes: Int[Tensor, "B N"]
    log_probability: Float[Tensor, "B N"]
    """Of each code that was drawn, in nats; 0 for given codes."""
    entropy: Float[Tensor, "B N"]
    """Of the prediction that each code was drawn from, in nats; 0 for given codes."""


class Progress(NamedTuple):
    """Pictures that are being drawn. The tensors belong to the decoder and change with the next step."""

    codes: Int[Tensor, "B N"]
    mask: Bool[Tensor, "*B N"]
    """Codes that are still to be drawn; what stands there means nothing yet."""
    done: int
    """Codes that each picture has, given ones included."""


@runtime_checkable
class Decoder(Protocol):
    """Draws the codes that a mask asks for. A seed always gives the same picture, whatever the batch."""

    def steps(self, batch: DrawingBatch) -> Generator[Progress, None, Drawn]:
        """Yields after each step and returns what was drawn. Closing the generator stops the drawing at that step and
        frees the cache."""
        ...

    def codes(self, batch: DrawingBatch, on_step: Callable[[Progress], None] = lambda progress: None) -> Drawn:
        """All steps at once."""
        steps = self.steps(batch)
        while True:
            try:
                on_step(next(steps))
            except StopIteration as end:
                return end.value
