"""What is told while a request is drawn: steps, unfinished pictures, pictures. It does not draw."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from tessera.errors import CheckpointError
from tessera.generate.decoder import Progress
from tessera.generate.picture import Picture


@dataclass(frozen=True)
class Step:
    """So many codes are drawn, of all that the request asks for."""

    done: int
    total: int


@dataclass(frozen=True)
class Partial:
    """The pictures of a batch of which the first rows are drawn; the rest is grey."""

    pictures: tuple[Picture, ...]


Event = Step | Partial | Picture


@contextmanager
def naming(run: str) -> Iterator[None]:
    """Put the run's name before what is wrong with its weights."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{run}: {error}" if run else str(error)) from error


def told(
    parts: Generator[Progress | list[Picture], None, None],
    count: int,
    grid: int,
    unfinished: Callable[[Tensor, slice], Sequence[Picture]] | None,
) -> Generator[Event, None, None]:
    """The events of a request for `count` pictures, from the steps and pictures of its batches. `unfinished` makes
    pictures of the first codes [B, n] of a slice of them, after every two rows, where they are wanted."""
    size, before = grid * grid, 0
    shown = 0
    with closing(parts):
        for part in parts:
            if isinstance(part, Progress):
                own, done = slice(before, before + len(part.codes)), part.done
                yield Step(before * size + len(part.codes) * done, count * size)
                shown, last = done // (2 * grid), shown
                if unfinished and shown > last and done < size and (first := leading(part)) >= grid:
                    yield Partial(tuple(unfinished(part.codes[:, :first], own)))
            else:
                before += len(part)
                yield from part


def leading(part: Progress) -> int:
    """How many codes every picture has from the first one on; in another order than reading order others may be known
    too."""
    return int((~part.mask).long().cumprod(-1).sum(-1).min())


def heard(
    events: Generator[Event, None, None],
    on_step: Callable[[int, int], None],
    on_partial: Callable[[list[Picture]], None] | None = None,
) -> Generator[Picture, None, None]:
    """The pictures among events; the others are told to callbacks."""
    with closing(events):
        for event in events:
            match event:
                case Step(done, total):
                    on_step(done, total)
                case Partial(pictures):
                    if on_partial:
                        on_partial(list(pictures))
                case Picture():
                    yield event


def greyed(drawn: Int[Tensor, "B n"], grid: int, pictures: Callable[[Tensor], list[Picture]]) -> list[Picture]:
    """Pictures of which only the first codes are drawn; what is missing is grey. `pictures` decodes whole grids."""
    rows = drawn.shape[1] // grid
    known = drawn[:, : rows * grid]
    guess = known[:, -grid:].repeat(1, grid - rows)  # the last row again: its lower neighbour in the decoder
    made = pictures(torch.cat((known, guess), 1))
    for picture in made:
        side = picture.image.width
        picture.image.paste("#c8c8c8", (0, side * rows // grid, side, side))
    return made
