"""A step that is taken again in smaller parts where memory runs out. It knows no loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

from tessera.machine.device import out_of_memory, release
from tessera.train.plan import more_parts

T = TypeVar("T")


def in_memory(work: Callable[[int], T], rows: int, parts: int, again: Callable[[], bool]) -> tuple[T, int]:
    """`work` in `parts` parts, or where memory runs out in twice as many, with the same noise; and how many it took.

    `again` clears what a try has left; False where it cannot, because other ranks wait for the one that failed.
    """
    noise = torch.get_rng_state()
    while True:
        try:
            return work(parts), parts
        except (RuntimeError, MemoryError) as error:
            more = more_parts(rows, parts)
            if not out_of_memory(error) or not more or not again():
                raise
            error.__traceback__ = None  # it holds what must be freed
        warnings.warn(f"Memory ran out with {parts} micro-batches; going on with {more}.", stacklevel=2)
        parts = more
        release()
        torch.set_rng_state(noise)
