"""What is told while a request is drawn: steps, unfinished pictures, pictures. It does not draw."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
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
    unfinished: Callable[[Progress, slice], Sequence[Picture]] | None,
) -> Generator[Event, None, None]:
    """The events of a request for `count` pictures, from the steps and pictures of its batches. `unfinished` makes
    pictures of how far a slice of them is, after every two rows' codes, where they are wanted."""
    size, before = grid * grid, 0
    shown = 0
    with closing(parts):
        for part in parts:
            if isinstance(part, Progress):
                own, done = slice(before, before + len(part.codes)), part.done
                yield Step(before * size + len(part.codes) * done, count * size)
                shown, last = done // (2 * grid), shown
                if unfinished and shown > last and done < size:
                    yield Partial(tuple(unfinished(part, own)))
            else:
                before += len(part)
                yield from part


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


def greyed(
    codes: Int[Tensor, "B N"], mask: Bool[Tensor, "*B N"], pictures: Callable[[Tensor], list[Picture]]
) -> list[Picture]:
    """Pictures of which only the codes that are not masked are known; what is missing is grey. `pictures` decodes whole
    grids, in which the nearest known code, the one above before others, stands where none is known."""
    unknown = mask.cpu().expand(codes.shape)
    grid = round(codes.shape[1] ** 0.5)
    made = pictures(codes.gather(1, nearest(unknown, grid).to(codes.device)))
    for picture, missing in zip(made, unknown.view(-1, grid, grid), strict=True):
        side = picture.image.width
        for row, column in missing.nonzero().tolist():
            left, top, right, bottom = (x * side // grid for x in (column, row, column + 1, row + 1))
            picture.image.paste("#c8c8c8", (left, top, right, bottom))
    return made


def nearest(unknown: Bool[Tensor, "B N"], grid: int) -> Int[Tensor, "B N"]:
    """For every place the known one that is nearest to it; itself where none is known."""
    rows, columns = torch.arange(grid * grid).div(grid, rounding_mode="floor"), torch.arange(grid * grid) % grid
    across, down = columns[:, None] - columns, rows[:, None] - rows
    far = across**2 + down**2 + 0.1 * (down < 0) + 0.05 * (across != 0)  # a known one above wins a tie
    return (
        torch.where(unknown[:, None], torch.inf, far.float())
        .argmin(-1)
        .where(~unknown.all(1)[:, None], torch.arange(grid * grid))
    )
