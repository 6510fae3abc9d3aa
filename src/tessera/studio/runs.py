"""What a page tells of runs: all of it is read from their folders, so that it is the same after a restart, and for runs
that were begun in a shell. It knows no processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tessera.config import PRIORS
from tessera.config.merging import read_json
from tessera.errors import TesseraError
from tessera.files.own import kind_of
from tessera.store.metrics import Followed
from tessera.store.run import Run
from tessera.studio.places import Places

PREVIEW = re.compile(r"step-(\d{1,12})\.png")
POINTS = 400
"""Of a curve, at most."""

Row = dict[str, float]


@dataclass(frozen=True)
class Stage:
    """One training of a run: that of its image tokenizer, or of its prior."""

    folder: Path
    rows: list[Row]

    def last(self, name: str) -> float | None:
        """The newest value of a number."""
        return next((row[name] for row in reversed(self.rows) if name in row), None)

    def curve(self, name: str, across: str = "step") -> list[tuple[float, float]]:
        """Points of a number, thinned evenly, the newest among them."""
        found = [(row.get(across, 0.0), row[name]) for row in self.rows if name in row]
        every = -(-len(found) // POINTS) or 1
        return found[::-1][::every][::-1]

    def previews(self) -> list[tuple[int, Path]]:
        """Its pictures over time, the oldest first."""
        folder = self.folder / "samples"
        names = [(match, p) for p in folder.glob("step-*.png") if (match := PREVIEW.fullmatch(p.name))]
        return sorted((int(match[1]), p) for match, p in names if not p.is_symlink())

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and held-out loss of the best it had."""
        found = [(row["held_loss"], int(row["step"])) for row in self.rows if "held_loss" in row]
        return (min(found)[1], min(found)[0]) if found else None


@dataclass(frozen=True)
class Seen:
    """One run."""

    name: str
    folder: Path

    @cached_property
    def _followed(self) -> tuple[Followed, Followed]:
        return Followed(Run(self.folder).metrics), Followed(Run(self.folder / "tokenizer").metrics)

    @property
    def prior(self) -> Stage:
        return Stage(self.folder, self._followed[0].look())

    @property
    def tokenizer(self) -> Stage:
        return Stage(self.folder / "tokenizer", self._followed[1].look())

    @property
    def finished(self) -> bool:
        """Whether `learn` came to its end."""
        return (self.folder / "report.html").is_file()

    @property
    def draws(self) -> bool:
        """Whether there is a checkpoint of a prior."""
        return (self.folder / "latest").is_file() and _kind(self.folder) in PRIORS

    def begun_with(self) -> list[str]:
        """The options of `learn` that must be the same when a run goes on, as words. They are values from a file, so
        only those of their kind are taken."""
        try:
            found = read_json(self.folder / "learn.json")
        except TesseraError:
            return []
        found = found if isinstance(found, dict) else {}
        crop, looks = found.get("crop"), found.get("perceptual")
        words = ["--crop", str(crop)] if isinstance(crop, float | int) and 0 < crop <= 1 else []
        words += ["--perceptual", looks] if looks in ("none", "lite0") else []
        return [*words, *(["--any-order"] if found.get("any_order") is True else [])]

    def pictures(self) -> str:
        """The folder it learns from, as its settings say, from where the Studio was started; nothing where they do
        not."""
        for folder in (self.folder, self.folder / "tokenizer"):
            try:
                path = Run(folder).config().data.path
                return str(Path(path).expanduser().absolute()) if path else ""
            except TesseraError:
                continue
        return ""


def seen(places: Places) -> list[Seen]:
    """The runs of the folder, the one that was worked at last first."""
    return sorted(_found(places), key=lambda run: -_changed(run.folder))


def _found(places: Places) -> Iterator[Seen]:
    for folder in places.runs.iterdir() if places.runs.is_dir() else ():
        try:
            if kind_of(places.run(folder.name)) == "run" and _kind(folder) in (*PRIORS, ""):
                yield Seen(folder.name, folder)
        except TesseraError:
            continue


def _kind(folder: Path) -> str:
    """The kind of model, nothing where none is written down yet."""
    try:
        found = read_json(folder / "config.json")
        return str(found["model"]["kind"])  # type: ignore[index]
    except (TesseraError, KeyError, TypeError):
        return ""


def _changed(folder: Path) -> float:
    times = [
        p.stat().st_mtime
        for p in (folder / "metrics.jsonl", folder / "tokenizer" / "metrics.jsonl", folder)
        if p.exists()
    ]
    return max(times, default=0.0)
