"""Figures for people: numbers, a table for a screen, and a bar from floor to ceiling for a page."""

from __future__ import annotations

from collections.abc import Sequence

from tessera.evaluate.figures import Evaluation, Figure
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.meanings import COVERS

WIDTH, EDGE = 240, 26
"""Of a bar, in pixels, and of what lies beyond floor and ceiling on either side."""


def number(value: float) -> str:
    """Three significant digits, and whole numbers whole."""
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.1e}"


def told(e: Estimate | None) -> str:
    """A figure with its interval, for a screen."""
    if e is None:
        return ""
    if e.low == e.value == e.high:
        return number(e.value)
    return f"{number(e.value)} [{number(e.low)}, {number(e.high)}]"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines, its columns one under the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def summary(e: Evaluation) -> list[str]:
    """The table on the screen: each figure with its interval, its floor and its ceiling."""
    rows = [["", "model [95 %]", "floor", "codes", "ceiling"]]
    for f in e.figures:
        others = [number(x.value) if x else "" for x in (f.floor, f.codes, f.ceiling)]
        rows.append([f.name, told(f.value), *others])
    lines = [*columns(rows), f"  {COVERS}"] if e.figures else columns(rows)
    lines += [f"  {name}: {number(value)}" for name, value in e.cost.items()]
    lines += [f"  {note}" for note in e.notes]
    return lines + ([f"\nIt {e.verdict.word}. {e.verdict.reason}"] if e.verdict else [])


def place(f: Figure, value: float) -> float:
    """0 at the floor, 1 at the ceiling; what lies beyond is kept near."""
    assert f.floor
    assert f.ceiling
    span = f.ceiling.value - f.floor.value
    return min(1.1, max(-0.1, (value - f.floor.value) / span))


def bar(f: Figure) -> str:
    """An SVG; nothing where the figure has no floor or no ceiling, or both are equal."""
    if f.floor is None or f.ceiling is None or abs(f.ceiling.value - f.floor.value) < 1e-12:
        return ""
    x = lambda value: EDGE + (WIDTH - 2 * EDGE) * place(f, value)
    left, right = sorted((x(f.value.low), x(f.value.high)))
    parts = [
        f"<line x1={EDGE} x2={WIDTH - EDGE} y1=11 y2=11 stroke='#ccc' stroke-width=2 />",
        f"<line x1={EDGE} x2={EDGE} y1=5 y2=17 stroke='#999' />",
        f"<line x1={WIDTH - EDGE} x2={WIDTH - EDGE} y1=5 y2=17 stroke='#999' />",
        f"<line x1={left:.1f} x2={right:.1f} y1=11 y2=11 stroke='#2b6cb0' stroke-width=6 stroke-opacity=.4 />",
        f"<circle cx={x(f.value.value):.1f} cy=11 r=4.5 fill='#2b6cb0' />",
    ]
    if f.codes:
        at = x(f.codes.value)
        parts.insert(3, f"<path d='M{at:.1f} 2 l8 9 l-8 9 l-8 -9 z' fill='none' stroke='#693' stroke-width=1.5 />")
    return f"<svg width={WIDTH} height=22 role=img aria-label='{told(f.value)}'>{''.join(parts)}</svg>"
