"""Where a run's numbers go. It knows no model."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tessera.store.run import Run


class Tracker(Protocol):
    """Gets each row of numbers as it happens; `notice` is for people."""

    def log(self, row: dict[str, Any]) -> None: ...
    def notice(self, text: str) -> None: ...
    def picture(self, name: str, path: Path, step: int, caption: str) -> None: ...
    def histogram(self, name: str, counts: Sequence[int], step: int) -> None: ...
    def checkpoint(self, folder: Path, step: int) -> None: ...
    def close(self) -> None: ...


class JSONL:
    """metrics.jsonl in the run folder: one row a line, always written."""

    def __init__(self, run: Run):
        self.run = run

    def log(self, row: dict[str, Any]) -> None:
        with self.run.written(), self.run.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def notice(self, text: str) -> None: ...

    def picture(self, name: str, path: Path, step: int, caption: str) -> None: ...

    def histogram(self, name: str, counts: Sequence[int], step: int) -> None: ...

    def checkpoint(self, folder: Path, step: int) -> None: ...

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

    def picture(self, name: str, path: Path, step: int, caption: str) -> None: ...

    def histogram(self, name: str, counts: Sequence[int], step: int) -> None: ...

    def checkpoint(self, folder: Path, step: int) -> None: ...

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

    def picture(self, name: str, path: Path, step: int, caption: str) -> None:
        for tracker in self.trackers:
            tracker.picture(name, path, step, caption)

    def histogram(self, name: str, counts: Sequence[int], step: int) -> None:
        for tracker in self.trackers:
            tracker.histogram(name, counts, step)

    def checkpoint(self, folder: Path, step: int) -> None:
        for tracker in self.trackers:
            tracker.checkpoint(folder, step)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()


class Window:
    """Numbers since the last row that was logged."""

    def __init__(self, step: int, share: float = 0.0):
        """`share` of the machine's arithmetic is what one sample a second takes."""
        self.share = share
        self.losses: list[float] = []
        self.parts: dict[str, float] = {}
        self.norm = self.waited = 0.0
        self.skipped = 0
        self.step, self.since = step, time.monotonic()

    def add(self, loss: float, parts: dict[str, float], norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            self.losses.append(loss)
            self.parts, self.norm = parts, norm
        else:
            self.skipped += 1

    def row(self, at: Any, rate: float, done: float, batch: int) -> dict[str, float | int]:
        """One row; `wait` is the share of time in which the step waited for data, `mfu` the share of the machine's
        matrix rate that the model's own arithmetic reached (Chowdhery et al. 2022)."""
        now = time.monotonic()
        time_passed = max(now - self.since, 1e-9)
        speed, wait = (at.step - self.step) * batch / time_passed, self.waited / time_passed
        loss = sum(self.losses) / len(self.losses) if self.losses else math.nan
        left = at.elapsed * (1 - done) / max(done, 1e-9)
        about = {
            "done": done,
            "elapsed": at.elapsed,
            "left_s": left,
            "samples_per_s": speed,
            "wait": wait,
            "mfu": speed * self.share,
        }
        spoiled = {"spoiled": self.skipped} if self.skipped else {}
        row = {"step": at.step, **({"loss": loss} if self.losses else {}), **self.parts, "lr": rate, "norm": self.norm}
        self.losses, self.waited, self.skipped = [], 0.0, 0
        self.step, self.since = at.step, now
        return {**row, **about, **spoiled}


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, s = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"
