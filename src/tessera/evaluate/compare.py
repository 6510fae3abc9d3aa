"""Evaluations side by side, and which differences are larger than noise. It measures nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tessera.errors import ConfigError
from tessera.evaluate.figures import Evaluation, Figure, read
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.telling import columns, number, told

Change = Literal["better", "worse", "other", "noise", "unknown"]
MARKS: dict[Change, str] = {"better": "+", "worse": "-", "other": "*", "noise": "", "unknown": "?"}
RULE = (
    "A difference is larger than noise where it exceeds the root of the sum of the squares of both half-widths, each "
    "on the side that faces the other figure: about one in twenty of equal figures would seem to differ. Runs are held "
    "against the first. +: better, -: worse, *: another value, ?: measured in another way."
)


def differ(a: Estimate, b: Estimate) -> bool:
    """Whether two figures that were measured independently differ by more than their noise."""
    low, high = (a, b) if a.value <= b.value else (b, a)
    return high.value - low.value > math.hypot(low.high - low.value, high.value - high.low)


def change(first: Figure, other: Figure) -> Change:
    """What became of a figure."""
    a, b = first.value, other.value
    if not differ(a, b):
        return "noise"
    if first.better == "nearer":
        if first.ceiling is None or other.ceiling is None:
            return "other"
        before, after = abs(a.value - first.ceiling.value), abs(b.value - other.ceiling.value)
        return "better" if after < before else "worse"
    return "better" if (b.value > a.value) == (first.better == "higher") else "worse"


@dataclass(frozen=True)
class Line:
    """One figure of every run; None where a run has none."""

    name: str
    figures: tuple[Figure | None, ...]
    changes: tuple[Change, ...]
    """Of every run but the first."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    names: tuple[str, ...]
    lines: tuple[Line, ...]
    warnings: tuple[str, ...]
    """Where runs were not measured in the same way."""


def load(runs: Sequence[str]) -> list[Evaluation]:
    """Raises ConfigError where there is one run alone, or one that was not evaluated."""
    if len(runs) < 2:
        raise ConfigError(
            "Name the runs to compare, the one that others are held against first: tessera compare RUN RUN ..."
        )
    return [read(run) for run in runs]


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Figures of equal names, the first run's order first."""
    first = evaluations[0]
    names = list(dict.fromkeys(f.name for e in evaluations for f in e.figures))
    by_name = [{f.name: f for f in e.figures} for e in evaluations]
    warnings = tuple(w for e in evaluations[1:] for w in _unlike(first, e))
    alike = [not _unlike(first, e) for e in evaluations[1:]]
    lines = []
    for name in names:
        found = tuple(figures.get(name) for figures in by_name)
        rows = zip(found[1:], alike, strict=True)
        changes = tuple(_changed(found[0], other) if same else "unknown" for other, same in rows)
        lines.append(Line(name, found, changes))
    return Comparison(tuple(e.run for e in evaluations), tuple(lines), warnings)


def _changed(first: Figure | None, other: Figure | None) -> Change:
    return "noise" if first is None or other is None else change(first, other)


def _unlike(first: Evaluation, other: Evaluation) -> list[str]:
    """What keeps two evaluations from being compared, as sentences."""
    found = []
    if first.asked != other.asked:
        found.append(f"{other.run} was measured on other held-out pictures than {first.run}: nothing can be compared.")
    for name, value in other.settings.items():
        if name not in ("seed", "photographs", "ranked") and first.settings.get(name) != value:
            found.append(f"{other.run} was measured with {name} {value}, {first.run} with {first.settings.get(name)}.")
    return found


def table(c: Comparison) -> list[str]:
    """Lines for a screen: a figure, then each run's value with its interval and its mark."""
    rows = [["", *c.names]]
    for line in c.lines:
        cells = [told(f.value) if f else "" for f in line.figures]
        marks = ["", *(MARKS[x] for x in line.changes)]
        rows.append([line.name, *(f"{cell} {mark}".rstrip() for cell, mark in zip(cells, marks, strict=True))])
    return columns(rows)


def sentences(c: Comparison) -> list[str]:
    """Every difference that is larger than noise, in words."""
    said = []
    for line in c.lines:
        for name, figure, what in zip(c.names[1:], line.figures[1:], line.changes, strict=True):
            if what in ("better", "worse", "other") and figure and line.figures[0]:
                values = f"{number(figure.value.value)} against {number(line.figures[0].value.value)}"
                said.append(
                    f"{line.name}: {name} is {'different' if what == 'other' else what} than {c.names[0]}, {values}."
                )
    return said or ["No difference is larger than noise."]


def to_json(c: Comparison) -> dict[str, Any]:
    return {"rule": RULE, **asdict(c)}
