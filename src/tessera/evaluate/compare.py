"""Recipes side by side, and which differences are larger than noise. It measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from tessera.evaluate.figures import Figure
from tessera.evaluate.intervals import Estimate, over_seeds
from tessera.evaluate.meanings import COVERS
from tessera.evaluate.recipes import MEASURING, SAMPLING, Recipe, notices, said
from tessera.evaluate.telling import columns, number, told
from tessera.evaluate.welch import LEVEL, difference, holm

Change = Literal["better", "worse", "other", "noise", "unknown"]
MARKS: dict[Change, str] = {"better": "+", "worse": "-", "other": "*", "noise": "", "unknown": "?"}
CLEAR = ("better", "worse", "other")
DRAWN = ("drawings", "text", "copying")
"""Groups of figures that are of drawings."""
RULE = (
    "A difference is larger than noise where it exceeds the root of the sum of the squares of both half-widths, each "
    "on the side that faces the other figure: about one in twenty of equal figures would seem to differ. Runs are held "
    "against the first. +: better, -: worse, *: another value, ?: measured in another way."
)
TRAINED = (
    "Runs joined by commas are trainings of one recipe. Their figure is the mean, with Student's interval over the "
    "trainings added to that over pictures, as squares; a difference must exceed Welch's interval over the trainings, "
    "added in the same way. A run alone beside them is given their spread. Doubled marks hold among all figures too, "
    "by Holm's method: at most one in twenty comparisons of equal recipes would show any."
)


def pooled(figures: Sequence[Figure]) -> Figure:
    """One figure of every training of a recipe as one, its ends too. That of a run alone comes back as it is."""
    ends = {end: [e for f in figures if (e := getattr(f, end))] for end in ("floor", "codes", "ceiling")}
    return replace(
        figures[0],
        value=over_seeds([f.value for f in figures]),
        **{end: over_seeds(found) if found else None for end, found in ends.items()},
    )


def change(first: Sequence[Figure], other: Sequence[Figure]) -> Change:
    """What became of a figure, of which each training of two recipes has one."""
    if not difference([f.value for f in first], [f.value for f in other]).counts:
        return "noise"
    before, after = pooled(first), pooled(other)
    if before.better == "nearer":
        if before.ceiling is None or after.ceiling is None:
            return "other"
        far, near = _apart(before.value, before.ceiling), _apart(after.value, after.ceiling)
        return "better" if near < far else "worse"
    return "better" if (after.value.value > before.value.value) == (before.better == "higher") else "worse"


def _apart(a: Estimate, b: Estimate) -> float:
    return abs(a.value - b.value)


@dataclass(frozen=True)
class Line:
    """One figure of every recipe; None where none of its runs has one."""

    name: str
    figures: tuple[Figure | None, ...]
    changes: tuple[Change, ...]
    """Of every recipe but the first."""
    chances: tuple[float | None, ...]
    """Of a difference as large between equal recipes; None where nothing is known of training again."""
    together: tuple[bool, ...]
    """Whether the difference counts among all figures too."""


@dataclass(frozen=True)
class Comparison:
    """Recipes side by side."""

    names: tuple[str, ...]
    runs: tuple[tuple[str, ...], ...]
    """Of every recipe."""
    lines: tuple[Line, ...]
    warnings: tuple[str, ...]
    """Where runs were not measured in the same way, or belong together."""


def compare(recipes: Sequence[Recipe]) -> Comparison:
    """Figures of equal names, the first run's order first."""
    names = list(dict.fromkeys(f.name for r in recipes for e in r.runs for f in e.figures))
    found = {name: [r.figures(name) for r in recipes] for name in names}
    held = [_against(recipes[0], other, [(rows[0], rows[i]) for rows in found.values()])
            for i, other in enumerate(recipes[1:], 1)]  # fmt: skip
    lines = []
    for place, name in enumerate(names):
        figures = tuple(pooled(figures) if figures else None for figures in found[name])
        verdicts = [column[place] for column in held]
        lines.append(
            Line(
                name, figures, tuple(v.change for v in verdicts), tuple(v.chance for v in verdicts),
                tuple(v.together for v in verdicts),
            )
        )  # fmt: skip
    warnings = [*notices(recipes), *(w for r in recipes[1:] for w in _unlike(recipes[0], r))]
    runs = tuple(tuple(e.run for e in r.runs) for r in recipes)
    return Comparison(tuple(r.name for r in recipes), runs, tuple(lines), tuple(warnings))


class Verdict(NamedTuple):
    """On one figure of two recipes; see `Line`."""

    change: Change
    chance: float | None
    together: bool


def _against(first: Recipe, other: Recipe, pairs: Sequence[tuple[Sequence[Figure], Sequence[Figure]]]) -> list[Verdict]:
    """Of each figure of two recipes; a chance is held against those of all the others."""
    changes: list[Change] = [_changed(first, other, *pair) for pair in pairs]
    chances = [None if what == "unknown" else _chance(*pair) for what, pair in zip(changes, pairs, strict=True)]
    together = iter(holm([c for c in chances if c is not None]))
    each = zip(changes, chances, strict=True)
    return [Verdict(what, c, c is not None and next(together) <= LEVEL and what in CLEAR) for what, c in each]


def _chance(before: Sequence[Figure], after: Sequence[Figure]) -> float | None:
    if not before or not after:
        return None
    return difference([f.value for f in before], [f.value for f in after]).chance


def _changed(first: Recipe, other: Recipe, before: Sequence[Figure], after: Sequence[Figure]) -> Change:
    if not before or not after:
        return "noise"
    ours, theirs = first.runs[0], other.runs[0]  # the runs of a recipe were measured alike
    drawn = before[0].group in DRAWN and any(ours.settings.get(s) != theirs.settings.get(s) for s in MEASURING)
    coded = before[0].group == "likelihood" and first.codes != other.codes
    return "unknown" if ours.asked != theirs.asked or drawn or coded else change(before, after)


def _unlike(first: Recipe, other: Recipe) -> list[str]:
    """In what two recipes differ, as sentences."""
    found = []
    ours, theirs = first.runs[0], other.runs[0]
    if ours.asked != theirs.asked:
        found.append(
            f"{other.name} was measured on other held-out pictures than {first.name}: nothing can be compared."
        )
    if first.codes != other.codes:
        has = "another image tokenizer" if len(first.codes) == len(other.codes) == 1 else "other image tokenizers"
        found.append(f"{other.name} has {has} than {first.name}: what a code costs cannot be compared.")
    for names, so in (
        (MEASURING, "figures of drawings cannot be compared"),
        (SAMPLING, "that is part of what differs"),
    ):
        for name in names:
            a, b = said(ours, name), said(theirs, name)
            if a != b:
                found.append(f"{other.name} was measured with {name} {b}, {first.name} with {a}: {so}.")
    return found


def table(c: Comparison) -> list[str]:
    """Lines for a screen: a figure, then each recipe's value with its interval and its mark."""
    rows = [["", *c.names]]
    if _several(c):
        rows.append(["trainings", *(str(len(runs)) for runs in c.runs)])
    for line in c.lines:
        cells = [told(f.value) if f else "" for f in line.figures]
        marks = ["", *(MARKS[x] * (1 + sure) for x, sure in zip(line.changes, line.together, strict=True))]
        rows.append([line.name, *(f"{cell} {mark}".rstrip() for cell, mark in zip(cells, marks, strict=True))])
    return columns(rows)


def sentences(c: Comparison) -> list[str]:
    """Every difference that is larger than noise, in words."""
    if len(c.names) == 1:
        return ["One recipe alone: there is nothing to hold it against."]
    said = []
    for line in c.lines:
        columns = zip(c.names[1:], line.figures[1:], line.changes, line.chances, line.together, strict=True)
        for name, figure, what, chance, together in columns:
            if what in CLEAR and figure and line.figures[0]:
                values = f"{number(figure.value.value)} against {number(line.figures[0].value.value)}"
                how = "different" if what == "other" else what
                looked = "" if chance is None else ", among all figures too" if together else ", taken by itself"
                said.append(f"{line.name}: {name} is {how} than {c.names[0]}, {values}{looked}.")
    some = any(change != "unknown" for line in c.lines for change in line.changes)
    return said or ["No difference is larger than noise." if some else "Nothing could be compared."]


def rules(c: Comparison) -> list[str]:
    """How differences were told from noise, and what the intervals cover."""
    alone = any(len(runs) == 1 for runs in c.runs)
    parts = {RULE: len(c.names) > 1, TRAINED: _several(c), COVERS: alone}
    return [part for part, said in parts.items() if said]


def _several(c: Comparison) -> bool:
    return any(len(runs) > 1 for runs in c.runs)


def to_json(c: Comparison) -> dict[str, Any]:
    return {"rule": " ".join(rules(c)), **asdict(c)}
