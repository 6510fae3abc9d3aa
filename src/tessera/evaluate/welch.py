"""The difference of a figure between two recipes, each trained once or several times, and its noise. It knows no
figures and no runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tessera.errors import ConfigError
from tessera.evaluate.intervals import NORMAL, Estimate

LEVEL = 0.05
"""The chance that a difference between equal recipes counts."""
HALVINGS = 60
"""Of the interval from 0 to 1 that holds a chance."""


@dataclass(frozen=True)
class Difference:
    """Between the figures of two recipes."""

    value: float
    """The second, less the first."""
    half: float
    """How large it must be to count."""
    chance: float | None
    """Of one as large between equal recipes; None where neither was trained again, so that nothing is known of that."""

    @property
    def counts(self) -> bool:
        return abs(self.value) > self.half


def difference(first: Sequence[Estimate], other: Sequence[Estimate]) -> Difference:
    """Of two recipes, each with one estimate for every training; all trainings were measured independently.

    It counts where it exceeds √(T² + a² + b²). T is the half-width of Welch's interval (1947): t √(s²/k + r²/m) for k
    and m trainings with standard deviations s and r, t being Student's with Welch and Satterthwaite's degrees of
    freedom. a and b are the mean half-widths within a training, each on the side that faces the other recipe; more
    trainings do not narrow them, because all look at the same pictures. Where one recipe was trained once, the other's
    s stands for both, which is Student's test of two samples. Where both were, T is 0.

    Raises ConfigError where T is asked for and SciPy is not installed.
    """
    value = _mean(other) - _mean(first)
    low, high = (first, other) if value >= 0 else (other, first)
    pictures = math.hypot(np.mean([e.high - e.value for e in low]), np.mean([e.value - e.low for e in high]))
    if len(first) == len(other) == 1:
        return Difference(value, pictures, None)
    error, freedom = _welch(first, other)
    return Difference(value, _half(LEVEL, error, freedom, pictures), _chance(abs(value), error, freedom, pictures))


def holm(chances: Sequence[float]) -> list[float]:
    """The chances of as many tests together (Holm 1979): of those that are up to 0.05 then, the chance that one or
    more are wrong is 0.05, however the tests depend on each other."""
    found, least = [0.0] * len(chances), 0.0
    for place, i in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        least = found[i] = max(least, min(1.0, (len(chances) - place) * chances[i]))
    return found


def _welch(first: Sequence[Estimate], other: Sequence[Estimate]) -> tuple[float, float]:
    """The standard error of the difference, as trainings spread, and its degrees of freedom."""
    several = [x for x in (first, other) if len(x) > 1]
    spread = [float(np.var([e.value for e in x], ddof=1)) for x in several]
    if len(several) == 1:
        return math.sqrt(spread[0] * (1 + 1 / len(several[0]))), len(several[0]) - 1
    parts = [v / len(x) for v, x in zip(spread, several, strict=True)]
    doubt = sum(v**2 / (len(x) - 1) for v, x in zip(parts, several, strict=True))
    return math.sqrt(sum(parts)), sum(parts) ** 2 / doubt if doubt else math.inf


def _half(level: float, error: float, freedom: float, pictures: float) -> float:
    """The half-width at a level; `pictures` is its part of the pictures at 0.05."""
    trainings = error and error * float(_special().stdtrit(freedom, level / 2))
    return math.hypot(trainings, pictures * NormalDist().inv_cdf(level / 2) / NORMAL)


def _chance(distance: float, error: float, freedom: float, pictures: float) -> float:
    """The level whose half-width is the distance, by halving."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if distance > _half(middle, error, freedom, pictures) else (middle, high)
    return high


def _mean(estimates: Sequence[Estimate]) -> float:
    return float(np.mean([e.value for e in estimates]))


def _special():
    try:
        from scipy import special
    except ImportError as error:
        raise ConfigError(
            "To compare several runs of one recipe, install SciPy: pip install 'tessera[judge]'."
        ) from error
    return special
