"""The difference of a figure between two recipes, each trained once or several times, and its noise. It knows no
figures and no runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tessera.errors import ConfigError, install
from tessera.evaluate.intervals import Estimate

LEVEL = 0.05
"""The chance that a difference between equal recipes counts."""
HALVINGS = 60
"""Of the interval from 0 to 1 that holds a chance."""


@dataclass(frozen=True)
class Difference:
    """Between the figures of two recipes. Raises ConfigError where SciPy is needed and not installed."""

    value: float
    """The second, less the first."""
    pictures: float
    """The half-width that pictures leave, at `LEVEL`."""
    error: float
    """The standard error of training again."""
    freedom: float
    """Its degrees of freedom; 0 where neither was trained again, so that nothing is known of it."""

    @property
    def half(self) -> float:
        """How large it must be to count."""
        return self._half(LEVEL)

    @property
    def counts(self) -> bool:
        return abs(self.value) > self.half

    @property
    def chance(self) -> float | None:
        """Of one as large between equal recipes: the level whose half-width it is, by halving. None where nothing is
        known of training again."""
        if not self.freedom:
            return None
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if abs(self.value) > self._half(middle) else (middle, high)
        return high

    def _half(self, level: float) -> float:
        trainings = self.error and self.error * _student(self.freedom, level)
        return math.hypot(trainings, self.pictures * (_normal(level) / _normal(LEVEL)))


def difference(first: Sequence[Estimate], other: Sequence[Estimate]) -> Difference:
    """Of two recipes, each with one estimate for every training; all trainings were measured independently.

    It counts where it exceeds √(T² + a² + b²). T is the half-width of Welch's interval (1947): t √(s²/k + r²/m) for k
    and m trainings with standard deviations s and r, t being Student's with Welch and Satterthwaite's degrees of
    freedom. a and b are the mean half-widths within a training, each on the side that faces the other recipe; more
    trainings do not narrow them, because all look at the same pictures. Where one recipe was trained once, the other's
    s stands for both, which is Student's test of two samples. Where both were, T is 0.
    """
    value = _mean(other) - _mean(first)
    low, high = (first, other) if value >= 0 else (other, first)
    pictures = math.hypot(np.mean([e.high - e.value for e in low]), np.mean([e.value - e.low for e in high]))
    return Difference(value, pictures, *_welch([x for x in (first, other) if len(x) > 1]))


def holm(chances: Sequence[float]) -> list[float]:
    """The chances of as many tests together (Holm 1979): of those that are up to 0.05 then, the chance that one or
    more are wrong is 0.05, however the tests depend on each other."""
    found, least = [0.0] * len(chances), 0.0
    for place, i in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        least = found[i] = max(least, min(1.0, (len(chances) - place) * chances[i]))
    return found


def _welch(several: Sequence[Sequence[Estimate]]) -> tuple[float, float]:
    """The standard error of the difference and its degrees of freedom, from the recipes that were trained again."""
    spread = [float(np.var([e.value for e in x], ddof=1)) for x in several]
    if len(several) < 2:
        return (math.sqrt(spread[0] * (1 + 1 / len(several[0]))), len(several[0]) - 1) if several else (0.0, 0)
    parts = [v / len(x) for v, x in zip(spread, several, strict=True)]
    doubt = sum(v**2 / (len(x) - 1) for v, x in zip(parts, several, strict=True))
    return math.sqrt(sum(parts)), sum(parts) ** 2 / doubt if doubt else math.inf


def _mean(estimates: Sequence[Estimate]) -> float:
    return float(np.mean([e.value for e in estimates]))


def _normal(level: float) -> float:
    """Standard deviations of a normal distribution that leave out so much on both sides together."""
    return -NormalDist().inv_cdf(level / 2)


def _student(freedom: float, level: float) -> float:
    """The same of Student's t."""
    try:
        from scipy.special import stdtrit
    except ImportError as error:
        raise ConfigError(f"To compare seeds of a recipe, install SciPy: {install('judge')}.") from error
    return -float(stdtrit(freedom, level / 2))
