"""Where a run's numbers go. It knows no model."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Protocol

from tessera.store import Run


class Tracker(Protocol):
    """Gets each row of numbers as it happens; `notice` is for people."""

    def log(self, row: dict[str, Any]) -> None: ...
    def notice(self, text: str) -> None: ...
    def close(self) -> None: ...


class JSONL:
    """metrics.jsonl in the run folder: one row a line, always written."""

    def __init__(self, run: Run):
        self.path = run.metrics

    def log(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def notice(self, text: str) -> None: ...

    def close(self) -> None: ...


class Screen:
    """A progress bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, title: str, every: float = 15.0):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.console, self.title, self.every, self.last = Console(), title, every, 0.0
        columns = [
            TextColumn("[bold]{task.description}"),
            BarColumn(24),
            TextColumn("{task.percentage:>3.0f}% {task.fields[words]}"),
        ]
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.progress.add_task(title, total=1.0, words="")
        self.progress.start()
        self.held = ""

    def log(self, row: dict[str, Any]) -> None:
        if "held_loss" in row:
            self.held = f" · held-out {row['held_loss']:.4f}"
        if "loss" not in row:
            return
        rate = f" · {row['samples_per_s']:.0f} samples/s" if "samples_per_s" in row else ""
        words = f"step {row['step']} · loss {row['loss']:.4f}{self.held}{rate} · {clock(row['left_s'])} left"
        self.progress.update(self.task, completed=row["done"], words=words)
        if not self.console.is_terminal and time.monotonic() - self.last > self.every:
            self.last = time.monotonic()
            print(f"{self.title}  {row['done']:4.0%}  {words}", flush=True)

    def notice(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self.progress.stop()


class Several:
    """All of them at once."""

    def __init__(self, trackers: Sequence[Tracker]):
        self.trackers = trackers

    def log(self, row: dict[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.log(row)

    def notice(self, text: str) -> None:
        for tracker in self.trackers:
            tracker.notice(text)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, s = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"
