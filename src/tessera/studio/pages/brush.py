"""What of a picture is drawn anew, as a page asks for it: a line, for runs that draw in reading order; squares that are
painted, for those that draw in any order."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import events, ui

from tessera.studio.pages.frame import button, small

LINE = (
    "Drag the line: what is above it stays, what is below is drawn anew. A run of this kind draws in reading order, so "
    "it can go on from whole rows at the top and from nothing else; a brush needs a run of a prior of any order."
)
PAINT = (
    "Paint what is to be drawn anew: drag over the squares, or move with the arrow keys and press space. All else "
    "stays as it is."
)


class Line:
    """A slider beside the picture: rows that stay."""

    def __init__(self) -> None:
        self.grid = 8
        self.veil = ui.element("div").classes("veil")

    def beside(self) -> None:
        """The slider."""
        self.slider = ui.slider(min=0, max=8, step=1, value=4, on_change=self._draw)
        self.slider.props('vertical snap markers aria-label="Rows that stay"')

    def use(self, grid: int, shown: bool) -> None:
        """For a run with so many rows; hidden for one that is painted on."""
        for part in (self.veil, self.slider):
            part.set_visibility(shown)
        self.grid = grid
        self.slider.props(f"max={grid} inner-min=1 inner-max={grid - 1}")
        self.slider.value = max(1, grid // 2)
        self._draw()

    @property
    def rows(self) -> int:
        return int(self.slider.value or 1)

    def _draw(self) -> None:
        self.veil.style(f"height:{100 - 100 * self.rows / self.grid:.2f}%")


class Brush:
    """Squares over the picture, one for each code."""

    def __init__(self) -> None:
        self.grid, self.painted = 8, list[int]()
        self.board = ui.element("div").classes("t-board").props('tabindex="0" role="application"')
        self.board.props('aria-label="What is drawn anew: arrow keys move, space paints, shift with arrows goes on"')
        ui.on("painted", self._heard)

    def tools(self) -> None:
        """Buttons for all of it and none of it."""
        with ui.element("div").classes("t-row") as self.row:
            button("Clear", lambda: self._set([]))
            button("Everything", lambda: self._set(range(self.grid**2)))
            button("The middle", lambda: self._set(middle(self.grid)))
            self.said = small("").props('role="status" aria-live="polite"')

    def use(self, grid: int, shown: bool) -> None:
        """For a run with so many squares on a side; hidden for one that cannot be painted on."""
        self.board.set_visibility(shown)
        self.row.set_visibility(shown)
        self.grid = grid
        self._set(middle(grid))

    def _set(self, painted: Sequence[int]) -> None:
        self.painted = list(painted)
        ui.run_javascript(f"window.tesseraBrush({self.board.id}, {self.grid}, {self.painted})")
        self._say()

    def _heard(self, event: events.GenericEventArguments) -> None:
        """Squares, as the page tells; whatever else it may send is left out."""
        told = event.args if isinstance(event.args, list) else []
        self.painted = sorted({i for i in told if isinstance(i, int) and 0 <= i < self.grid**2})
        self._say()

    def _say(self) -> None:
        self.said.text = f"{len(self.painted)} of {self.grid**2} squares are drawn anew."


def middle(grid: int) -> list[int]:
    """The squares of the middle quarter of a picture."""
    inside = range(grid // 4, grid - grid // 4)
    return [row * grid + column for row in inside for column in inside]
