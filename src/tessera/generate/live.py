"""Pictures as they are drawn, which a notebook shows on the way. It does not draw."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

from tessera.generate.events import Event, heard
from tessera.generate.picture import Picture
from tessera.generate.sheet import contact_sheet
from tessera.machine.notebook import Cell, in_notebook

OnStep = Callable[[int, int], None]
OnPartial = Callable[[list[Picture]], None]


class PictureStream(Iterator[Picture]):
    """The pictures of a request, each as soon as its batch is drawn; closing it stops the drawing at that step.

    In a notebook the cell shows them all the while, unfinished ones too, unless `on_partial` takes these. A cell that
    ends with one draws all of them; `pictures` are those that are finished.
    """

    def __init__(
        self, events: Callable[[bool], Generator[Event, None, None]], count: int, on_step: OnStep,
        on_partial: OnPartial | None,
    ):  # fmt: skip
        """`events(partial)` begins to draw `count` pictures, and tells of unfinished ones where these are wanted."""
        self.sheet = Sheet(count) if on_partial is None and in_notebook() else Unseen()
        partial = on_partial or self.sheet.partial
        self.drawn = heard(events(partial is not None), on_step, partial)
        self.pictures: list[Picture] = []

    def __next__(self) -> Picture:
        picture = next(self.drawn)
        self.pictures.append(picture)
        self.sheet.show([picture])
        return picture

    def close(self) -> None:
        self.drawn.close()

    def _ipython_display_(self) -> None:
        for _ in self:
            pass


class Unseen:
    """Nobody looks."""

    partial: OnPartial | None = None

    def show(self, pictures: Sequence[Picture]) -> None: ...


class Sheet:
    """All pictures so far in one output of a cell, in the order of their seeds."""

    def __init__(self, count: int):
        self.columns, self.cell, self.known = min(count, 8), Cell(), dict[int, Picture]()
        self.partial: OnPartial | None = self.show

    def show(self, pictures: Sequence[Picture]) -> None:
        self.known |= {picture.seed: picture for picture in pictures}
        self.cell.show(contact_sheet(list(self.known.values()), self.columns, captions=False))
