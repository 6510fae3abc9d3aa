"""Numbers for people, and a figure's place between its floor and its ceiling as a small drawing."""

from __future__ import annotations

from tessera.evaluate.figures import Figure
from tessera.evaluate.intervals import Estimate

WIDTH, EDGE = 240, 20
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
        parts.append(f"<path d='M{at:.1f} 4 l6 7 l-6 7 l-6 -7 z' fill='#fdfcfa' stroke='#7a4' stroke-width=1.5 />")
    return f"<svg width={WIDTH} height=22 role=img aria-label='{told(f.value)}'>{''.join(parts)}</svg>"
