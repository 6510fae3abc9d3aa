"""The runs that are drawn from: each is loaded when it has a checkpoint, and again when it has a better one. It
knows no pages."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from tessera.config import ServingConfig
from tessera.errors import TesseraError
from tessera.serve.logs import tell_error
from tessera.serve.measures import Measures
from tessera.serve.server import load
from tessera.serve.worker import Worker
from tessera.store.run import Run
from tessera.studio.places import Places
from tessera.studio.runs import Seen, seen

HELD, AGAIN = 12, 60.0
"""Runs that are held in memory, those worked at last; and seconds before one that still learns is read again."""


@dataclass
class Catalogue:
    """Fills a worker with what lies in the folder of runs."""

    places: Places
    config: ServingConfig
    worker: Worker
    measures: Measures
    held: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By run: the checkpoint that was read, and when."""
    failed: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By run: the checkpoint that could not be read, and when."""

    def refresh(self) -> None:
        """Read what is new, and forget what is gone. It takes as long as reading weights does."""
        found = [run for run in seen(self.places) if run.draws][:HELD]
        for name in self.held.keys() - {run.name for run in found}:
            if not self.worker.benches[name].busy:
                del self.held[name]
                self._serve(name, None)
        for run in found:
            self._take(run)

    def _take(self, run: Seen) -> None:
        best = _best(run.folder)
        failed, then = self.failed.get(run.name, ("", 0.0))
        if best == failed and time.monotonic() - then < AGAIN:
            return
        before, when = self.held.get(run.name, ("", 0.0))
        busy = run.name in self.held and self.worker.benches[run.name].busy
        if best in ("", before) or busy or (before and not run.finished and time.monotonic() - when < AGAIN):
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a damaged checkpoint, in whose place another is taken
                bench = load(run.name, str(run.folder), self.config, self.measures)
        except (TesseraError, OSError) as error:  # perhaps it is being replaced
            tell_error("run not read", error, model=run.name)
            self.failed[run.name] = best, time.monotonic()
            return
        self.held[run.name] = best, time.monotonic()
        self._serve(run.name, bench)

    def _serve(self, name: str, bench: object) -> None:
        others = {key: own for key, own in self.worker.benches.items() if key != name}
        with self.worker.changed:
            self.worker.benches = others if bench is None else {**others, name: bench}  # type: ignore[assignment]


def _best(folder: Path) -> str:
    run = Run(folder)
    chosen = run.named_best() or run.latest()
    return chosen.name if chosen else ""
