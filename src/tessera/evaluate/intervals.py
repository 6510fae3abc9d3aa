"""Figures with their 95 % intervals. It knows no pictures and no networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tessera.errors import DataError

NORMAL = 1.96
"""Standard deviations on either side of the middle that hold 95 % of a normal distribution."""
STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The same for Student's t with 1, 2, ... degrees of freedom."""


@dataclass(frozen=True)
class Estimate:
    """A figure, the interval that holds it with 95 % confidence, and over how many pictures it was taken."""

    value: float
    low: float
    high: float
    count: int


def bootstrap(
    values: ArrayLike, statistic: Callable[[np.ndarray], float] = np.mean, rounds: int = 1000, seed: int = 0
) -> Estimate:
    """A statistic of the rows of `values` [N, ...], with its percentile interval over samples of rows drawn again with
    replacement (Efron 1979). One row says nothing of its spread: `low` and `high` are then the value itself."""
    rows = _some(values)
    noise = np.random.default_rng(seed)
    again = [float(statistic(rows[noise.integers(len(rows), size=len(rows))])) for _ in range(rounds)]
    low, high = np.quantile(again, (0.025, 0.975))
    return Estimate(float(statistic(rows)), float(low), float(high), len(rows))


def share(hits: ArrayLike) -> Estimate:
    """A share of N cases, each counting 0 ... 1, with Wilson's interval (1927), which has a width at 0 and 1 too."""
    rows = _some(hits)
    n, p = len(rows), float(rows.mean())
    middle = (p + NORMAL**2 / (2 * n)) / (1 + NORMAL**2 / n)
    half = NORMAL / (1 + NORMAL**2 / n) * math.sqrt(p * (1 - p) / n + NORMAL**2 / (4 * n**2))
    return Estimate(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)), n)


def auc(positive: ArrayLike, negative: ArrayLike) -> Estimate:
    """The chance that a positive's score is above a negative's, a tie being half: the area under the ROC curve. The
    interval is DeLong's (1988); `count` is the smaller of both counts."""
    a, b = np.sort(_some(positive)), np.sort(_some(negative))
    above = _below(b, a) / len(b)  # of each positive: the share of negatives below it
    below = 1 - _below(a, b) / len(a)
    value = float(above.mean())
    half = NORMAL * math.sqrt(_variance(above) / len(a) + _variance(below) / len(b))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), min(len(a), len(b)))


def over_seeds(estimates: Sequence[Estimate], least: float = -math.inf, most: float = math.inf) -> Estimate:
    """One figure of several seeds of the same recipe: of drawings, or of training.

    The half-width of its interval is √(T² + w²) on either side. T = t s / √k is Student's interval (1908) of the mean
    of k seeds with standard deviation s, t having k - 1 degrees of freedom; w is the mean half-width within a seed,
    not divided by the number of seeds, because all seeds are compared with the same photographs. What w holds of
    the noise of a single seed is in s too, so the interval is too wide rather than too narrow. `least` and `most`
    bound what the figure can be.
    """
    if not estimates:
        raise DataError("No seed was measured, so there is nothing to combine.")
    if len(estimates) == 1:
        return estimates[0]
    values = np.array([e.value for e in estimates])
    mean, n = float(values.mean()), len(values)
    between = STUDENT[min(n - 2, len(STUDENT) - 1)] * float(values.std(ddof=1)) / math.sqrt(n)
    lower = math.hypot(between, float(np.mean([e.value - e.low for e in estimates])))
    upper = math.hypot(between, float(np.mean([e.high - e.value for e in estimates])))
    return Estimate(mean, max(least, mean - lower), min(most, mean + upper), sum(e.count for e in estimates))


def _some(values: ArrayLike) -> np.ndarray:
    """At least one row, all finite. Raises DataError."""
    rows = np.asarray(values, dtype=np.float64)
    if not rows.size:
        raise DataError("There is nothing to measure: no picture is left.")
    if not np.isfinite(rows).all():
        raise DataError(f"{int((~np.isfinite(rows)).sum())} of {rows.size} measured values are NaN or infinite.")
    return rows


def _below(sorted_: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Of each value: how many of the sorted ones are smaller, equal ones counting half."""
    return (np.searchsorted(sorted_, values, "left") + np.searchsorted(sorted_, values, "right")) / 2


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0
