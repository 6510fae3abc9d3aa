"""What draws codes: one protocol for reading order and for any other. It knows no model and no pixels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tessera.config import SampleConfig


class Drawn(NamedTuple):
    """Codes, and how sure the model was of them: what it says by its own guided logits, before temperature and filters
    take anything away."""

    codes: Int[Tensor, "B N"]
    log_probability: Float[Tensor, "B N"]
    """Of each code that was drawn, in nats; 0 for given ones."""
    entropy: Float[Tensor, "B N"]
    """Of the prediction that each code was drawn from, in nats; 0 for given ones."""


class Progress(NamedTuple):
    """Pictures that are being drawn. The tensors are the decoder's own and change with the next step."""

    codes: Int[Tensor, "B N"]
    mask: Bool[Tensor, "*B N"]
    """Codes that are still to be drawn; what stands there means nothing yet."""
    done: int
    """Codes that each picture has, given ones included."""


@runtime_checkable
class Decoder(Protocol):
    """Fills in the codes of pictures.

    known   3 1 4 . . . . .      given codes
    mask    - - - x x x x x      which are to be drawn: [N], or [B, N] where pictures differ
    codes   3 1 4 7 0 5 2 9
    """

    def steps(
        self,
        tokens: Int[Tensor, "B T"],
        known: Int[Tensor, "B N"],
        mask: Bool[Tensor, "*B N"],
        seeds: Sequence[int],
        sampling: SampleConfig,
    ) -> Generator[Progress, None, Drawn]:
        """Step by step: what is there after each, and at last what was drawn. Whoever closes it half-way stops the
        drawing there and frees what it held. No argument is changed."""
        ...

    def codes(
        self,
        tokens: Int[Tensor, "B T"],
        known: Int[Tensor, "B N"],
        mask: Bool[Tensor, "*B N"],
        seeds: Sequence[int],
        sampling: SampleConfig,
        on_step: Callable[[Progress], None] = lambda progress: None,
    ) -> Drawn:
        """All steps at once. A seed always gives the same picture, whatever the batch."""
        steps = self.steps(tokens, known, mask, seeds, sampling)
        while True:
            try:
                on_step(next(steps))
            except StopIteration as end:
                return end.value


def after(prime: Int[Tensor, "B n"], total: int) -> tuple[Int[Tensor, "B N"], Bool[Tensor, " N"]]:
    """`known` and `mask` of pictures whose first n codes are given."""
    known = prime.new_zeros(len(prime), total)
    known[:, : prime.shape[1]] = prime
    return known, torch.arange(total) >= prime.shape[1]
