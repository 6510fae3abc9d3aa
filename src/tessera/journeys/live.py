"""The loss curves of a run while it trains, in a cell of a notebook. It knows no training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tessera.evaluate.plots import plot
from tessera.machine.notebook import Cell
from tessera.store.run import Run

EVERY, SHARE = 1.0, 0.05
"""Seconds between two drawings, and the most that drawing may take of the time of training."""


class Curves:
    """A Tracker that draws the curves of a run anew as rows come."""

    def __init__(self, run: Run, every: float = EVERY):
        self.run, self.cell, self.every, self.next = run, Cell(), every, 0.0

    def log(self, row: dict[str, object]) -> None:
        if time.monotonic() >= self.next:
            self._draw()

    def _draw(self) -> None:
        began = time.monotonic()
        self.cell.show(plot(self.run.folder.name, self.run.read_metrics()))
        now = time.monotonic()
        self.next = now + max(self.every, (now - began) / SHARE)

    def notice(self, text: str) -> None: ...

    def picture(self, name: str, path: Path, step: int, caption: str) -> None: ...

    def histogram(self, name: str, counts: Sequence[int], step: int) -> None: ...

    def checkpoint(self, folder: Path, step: int) -> None: ...

    def close(self) -> None:
        self._draw()
