"""Evaluations side by side, and which differences are larger than noise. It measures nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tessera.errors import ConfigError
from tessera.evaluate.figures import Evaluation, Figure, read
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.telling import columns, number, told

Change = Literal["better", "worse", "other", "noise", "unknown"]
MARKS: dict[Change, str] = {"better": "+", "worse": "-", "other": "*", "noise": "", "unknown": "?"}
DRAWN = ("drawings", "text", "copying")
"""Groups of figures that are of drawings."""
MEASURING = ("count", "seeds", "photographs")
"""Settings that change how drawings are measured."""
SAMPLING = ("guidance", "temperature", "top_k", "top_p")
"""Settings that change the drawings themselves."""
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
    found = [read(run) for run in runs]
    alike = len({e.run for e in found}) < len(found)  # folders of one name in different places
    return [replace(e, run=run) for e, run in zip(found, runs, strict=True)] if alike else found


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Figures of equal names, the first run's order first."""
    first = evaluations[0]
    names = list(dict.fromkeys(f.name for e in evaluations for f in e.figures))
    by_name = [{f.name: f for f in e.figures} for e in evaluations]
    lines = []
    for name in names:
        found = tuple(figures.get(name) for figures in by_name)
        others = zip(evaluations[1:], found[1:], strict=True)
        changes: list[Change] = [_changed(first, found[0], e, f) for e, f in others]
        lines.append(Line(name, found, tuple(changes)))
    warnings = tuple(w for e in evaluations[1:] for w in _unlike(first, e))
    return Comparison(tuple(e.run for e in evaluations), tuple(lines), warnings)


def _changed(first: Evaluation, before: Figure | None, other: Evaluation, after: Figure | None) -> Change:
    if before is None or after is None:
        return "noise"
    drawn = before.group in DRAWN and any(first.settings.get(s) != other.settings.get(s) for s in MEASURING)
    coded = before.group == "likelihood" and first.codes != other.codes
    return "unknown" if first.asked != other.asked or drawn or coded else change(before, after)


def _unlike(first: Evaluation, other: Evaluation) -> list[str]:
    """In what two evaluations differ, as sentences."""
    found = []
    if first.asked != other.asked:
        found.append(f"{other.run} was measured on other held-out pictures than {first.run}: nothing can be compared.")
    if first.codes != other.codes:
        found.append(f"{other.run} has another image tokenizer than {first.run}: what a code costs cannot be compared.")
    for names, so in (
        (MEASURING, "figures of drawings cannot be compared"),
        (SAMPLING, "that is part of what differs"),
    ):
        for name in names:
            ours, theirs = first.settings.get(name), other.settings.get(name)
            if ours != theirs:
                found.append(f"{other.run} was measured with {name} {theirs}, {first.run} with {ours}: {so}.")
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
    some = any(change != "unknown" for line in c.lines for change in line.changes)
    return said or ["No difference is larger than noise." if some else "Nothing could be compared."]


def to_json(c: Comparison) -> dict[str, Any]:
    return {"rule": RULE, **asdict(c)}
