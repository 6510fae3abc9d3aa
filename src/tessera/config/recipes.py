"""The recipes of `learn`: what it takes on a machine, in a time, for so many pictures. Presets are names here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Recipe(NamedTuple):
    """What `learn` takes on a machine and in a time: two presets, and what it puts over them."""

    machine: str
    """cuda, or cpu for every other device."""
    hours: float
    """The budget is below this."""
    tokenizer: str
    """The preset that gives the image tokenizer its widths, codes and rate."""
    plain: str
    """The same where pixels alone are compared."""
    prior: str
    """The preset that gives the prior its width, depth and batch."""
    any_order: str
    """The same for one of any order."""
    shift: bool
    """Whether a prior of reading order has a token shift."""
    warmup: float
    """Share of both trainings in which the rate rises; where that is 0, a number of steps."""
    pixels: int
    """Largest side of the pictures, where the user names none."""
    grid: int
    """Side of the grid of codes, where the user names none."""


class Repeats(NamedTuple):
    """How a prior is kept from learning its pictures by heart, by how often it will see each of them."""

    epochs: float
    """The prior would see each picture fewer times than this in 60 % of the budget."""
    dropout: float
    weight_decay: float
    noise: float
    """Share of the codes that near ones replace where they are read."""
    tokenizer_share: float
    """Of the budget: where the prior sees its pictures often, more of the time does more in the image tokenizer."""


ANY = math.inf
RECIPES = (
    Recipe("cpu",    2, "pyramid-xs-64", "plain-s-64",    "t2i-xxs-64", "any-xs-64", True,  0.5,  64,  8),
    Recipe("cpu",    6, "pyramid-xs-64", "plain-s-64",    "t2i-s-64",   "any-s-64",  False, 0.0,  64,  8),
    Recipe("cpu",  ANY, "pyramid-s-128", "pyramid-s-128", "t2i-s-64",   "any-s-64",  False, 0.0, 128,  8),
    Recipe("cuda", ANY, "pyramid-m-256", "pyramid-m-256", "t2i-m-128",  "any-m-128", False, 0.0, 256, 16),
)  # fmt: skip
"""The first that fits is taken. All priors draw in reading order: one of any order was behind it on 629 photographs at
20, 50 and 150 epochs of equal time ("When which" in docs/ablation.md), and is taken where editing is asked for. Three
layers, the token shift and the long warm-up were measured in trainings of up to half an hour."""

REPEATS = (
    Repeats( 10, 0.0, 0.05, 0.0, 0.25),
    Repeats( 40, 0.1, 0.05, 0.0, 0.25),
    Repeats(ANY, 0.2, 1.0,  0.4, 0.35),
)  # fmt: skip
"""The first that fits is taken (docs/ablation.md)."""

FINE, FINE_LEVELS = 4, (4, 4, 4)
"""Where a code stands for a square of at most so many pixels a side, it needs fewer values than a preset's, and the
prior learns them sooner (docs/ablation.md)."""

VIEWS = ((3_000, 16), (ANY, 4))
"""How often each picture is encoded at most, each time with another crop, where there are fewer pictures than this."""


class Width(NamedTuple):
    """What suits a prior by its width."""

    width: float
    """The prior is at most as wide as this."""
    lr: float
    muon_lr: float
    """Of its matrices, which Muon moves; 0 leaves them to AdamW."""
    head_dim: int


WIDTHS = (
    Width(192, 8e-3,   2e-2, 32),
    Width(256, 3e-3,   0.0,  64),
    Width(ANY, 1.5e-3, 0.0,  64),
)  # fmt: skip
"""The first that fits is taken (docs/ablation.md)."""


def recipe(machine: str, hours: float) -> Recipe:
    """The recipe for a machine (cuda or cpu) and a budget in hours."""
    return next(r for r in RECIPES if r.machine == machine and hours < r.hours)


def repeats(epochs: float) -> Repeats:
    """What is done against learning by heart, for a prior that will see each picture so many times."""
    return next(r for r in REPEATS if epochs < r.epochs)


def views(pictures: int, epochs: float) -> int:
    """How often each of so many pictures is encoded, for a prior that will see it so many times: encoding takes a
    prior's time, and each crop should be worth two looks."""
    return min(next(count for bound, count in VIEWS if pictures < bound), max(2, math.ceil(epochs / 2)))


def levels_for(own: tuple[int, ...], cell: int) -> tuple[int, ...]:
    """Of a preset's codes, where each stands for a square of `cell` pixels a side."""
    return min(own, FINE_LEVELS, key=math.prod) if cell <= FINE else own


def of_width(dim: int) -> Width:
    """What suits a prior of this width."""
    return next(w for w in WIDTHS if dim <= w.width)


def recipes() -> list[str]:
    """The tables of recipes, in lines."""
    bound: Callable[[float], str] = lambda x: "any" if x == ANY else f"{x:,}"
    said: Callable[[object], str] = lambda x: "yes" if x is True else str(x) if x else "-"
    return [
        *_aligned(
            (
                "machine",
                "hours <",
                "tokenizer",
                "pixels alone",
                "prior",
                "of any order",
                "shift",
                "warm-up",
                "pixels <=",
                "grid",
            ),
            [(r.machine, bound(r.hours), *map(said, r[2:])) for r in RECIPES],
        ),
        "",
        *_aligned(
            ("epochs <", "dropout", "weight decay", "codes replaced", "tokenizer's time"),
            [(bound(r.epochs), *map(str, r[1:])) for r in REPEATS],
        ),
        "",
        *_aligned(
            ("prior's width <=", "rate", "of matrices, by Muon", "width of a head"),
            [(bound(w.width), f"{w.lr:g}", f"{w.muon_lr:g}" if w.muon_lr else "-", str(w.head_dim)) for w in WIDTHS],
        ),
    ]


def _aligned(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
