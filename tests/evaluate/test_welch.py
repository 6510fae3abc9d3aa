"""Differences between recipes: equal to SciPy's tests, as often wrong as they say, and sane where little is known."""

from __future__ import annotations

import builtins
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tessera.errors import ConfigError
from tessera.evaluate.intervals import Estimate, over_seeds
from tessera.evaluate.welch import difference, holm


def exact(values) -> list[Estimate]:
    """Trainings that were measured without any noise."""
    return spread(values, 0.0)


def spread(values, half: float) -> list[Estimate]:
    return [Estimate(float(v), float(v) - half, float(v) + half, 50) for v in values]


@pytest.mark.parametrize("k", [2, 3, 5, 20])
def test_the_interval_of_trainings_is_students(k):
    values = np.random.default_rng(k).normal(3, 2, k)
    found = over_seeds(exact(values))
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    widths = [(e.low - values.mean(), e.high - values.mean()) for e in (found, interval)]
    assert widths[0] == pytest.approx(widths[1], rel=3e-4)  # its table has three digits after the point


def covered(k: int, trainings: float, pictures: float, draws: int = 2000) -> float:
    """How often the interval of a mean holds the truth, 0, where trainings spread and all look at the same pictures."""
    noise = np.random.default_rng(7)
    found = (
        over_seeds(spread(noise.normal(0, pictures) + noise.normal(0, trainings, k), 1.96 * pictures))
        for _ in range(draws)
    )
    return float(np.mean([e.low <= 0 <= e.high for e in found]))


def test_the_interval_of_three_trainings_covers_the_truth_as_often_as_it_says():
    assert 0.93 < covered(3, 1.0, 0.0) < 0.97


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("pictures", [0.3, 1.0, 3.0])
def test_with_the_doubt_of_pictures_it_is_too_wide_rather_than_too_narrow(k, pictures):
    assert 0.94 < covered(k, 1.0, pictures) < 0.99


def test_one_training_alone_covers_less_than_it_seems():
    assert covered(1, 1.0, 1.0) < 0.85, "the reason for groups: pictures are all that it knows of"


@pytest.mark.parametrize(("k", "m"), [(2, 2), (3, 3), (3, 5), (4, 2)])
def test_a_difference_is_welchs(k, m):
    noise = np.random.default_rng(k * m)
    a, b = noise.normal(0, 1, k), noise.normal(1, 3, m)
    found, theirs = difference(exact(a), exact(b)), stats.ttest_ind(b, a, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert found.value == pytest.approx(b.mean() - a.mean())
    assert found.half == pytest.approx((interval.high - interval.low) / 2)
    assert found.chance == pytest.approx(theirs.pvalue, abs=1e-9)
    assert found.counts == (theirs.pvalue < 0.05)


def test_a_run_alone_is_given_the_spread_of_the_others():
    a = [1.0, 2.0, 4.0]
    for found in (difference(exact(a), exact([9.0])), difference(exact([9.0]), exact(a))):
        theirs = stats.ttest_ind([9.0], a, equal_var=True)
        assert abs(found.value) == pytest.approx(9 - 7 / 3)
        assert found.chance == pytest.approx(theirs.pvalue, abs=1e-9)
        assert found.half == pytest.approx(stats.t.ppf(0.975, 2) * np.std(a, ddof=1) * math.sqrt(4 / 3))


def test_two_runs_alone_keep_the_rule_of_half_widths():
    noise = np.random.default_rng(0)
    for _ in range(200):
        a, b, c, d, e, f = noise.exponential(1, 6)
        low, high = Estimate(a, a - b, a + c, 9), Estimate(a + d, a + d - e, a + d + f, 9)
        for found in (difference([low], [high]), difference([high], [low])):
            assert found.half == math.hypot(low.high - low.value, high.value - high.low)
            assert found.chance is None


@pytest.mark.parametrize(("k", "m", "times", "pictures"), [(3, 3, 1, 0), (3, 1, 1, 0), (3, 5, 2, 0), (3, 3, 1, 1), (1, 2, 1, 0.3)])  # fmt: skip
def test_equal_recipes_seldom_seem_to_differ(k, m, times, pictures):
    """Pictures move both recipes alike in truth; here each in its own way, which is the worst case."""
    noise = np.random.default_rng(0)

    def drawn(count: int, scale: float) -> list[Estimate]:
        return spread(noise.normal(0, pictures) + noise.normal(0, scale, count), 1.96 * pictures)

    assert np.mean([difference(drawn(k, 1), drawn(m, times)).counts for _ in range(2000)]) < 0.06


def test_pictures_add_to_trainings_as_squares_on_the_sides_that_face_each_other():
    a = [Estimate(v, v - 9, v + 1, 5) for v in (0.0, 1.0, 2.0)]
    b = [Estimate(v, v - 2, v + 9, 5) for v in (20.0, 21.0, 22.0)]
    alone = difference(exact([0, 1, 2]), exact([20, 21, 22]))
    for found in (difference(a, b), difference(b, a)):
        assert found.half == pytest.approx(math.hypot(alone.half, 1, 2))
    assert difference(a, b).chance > alone.chance  # type: ignore[operator]


def test_the_chance_at_the_half_width_is_a_twentieth():
    a, b = spread([0, 1, 3], 0.7), spread([0, 2, 1], 0.4)
    half = difference(a, b).half
    shift = half - difference(a, b).value
    moved = [Estimate(e.value + shift, e.low + shift, e.high + shift, 5) for e in b]
    assert difference(a, moved).chance == pytest.approx(0.05)


def test_equal_values_have_no_spread_and_pictures_are_what_is_left():
    found = difference(spread([2, 2, 2], 3), spread([7, 7, 7], 4))
    assert found.half == pytest.approx(5)
    assert not difference(spread([2, 2, 2], 3), spread([6.9, 6.9, 6.9], 4)).counts
    assert over_seeds(exact([2, 2, 2])) == Estimate(2, 2, 2, 150)
    same, other = difference(exact([2, 2]), exact([2, 2])), difference(exact([2, 2]), exact([3, 3]))
    assert (same.counts, same.chance) == (False, 1)
    assert other.counts
    assert other.chance == pytest.approx(0, abs=1e-15)


def test_holms_chances_are_those_of_its_steps():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1, 1]
    noise = np.random.default_rng(0)
    for count in range(1, 9):
        chances = list(noise.uniform(0, 0.05, count) ** noise.integers(1, 3))
        assert [c <= 0.05 for c in holm(chances)] == stepped_down(chances, 0.05)


def stepped_down(chances: list[float], level: float) -> list[bool]:
    """Holm's procedure as he wrote it: the least first, each against the level over how many are left."""
    believed = [False] * len(chances)
    left = list(range(len(chances)))
    while left:
        least = min(left, key=chances.__getitem__)
        if chances[least] > level / len(left):
            break
        believed[least] = True
        left.remove(least)
    return believed


def test_without_scipy_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"tessera-t2i\[judge\]"):
        assert difference(exact([1, 2, 3]), exact([4, 5, 6])).counts
    assert difference(exact([1]), exact([2])).counts, "runs alone need none"


def test_the_page_says_truly_how_many_seeds_are_needed():
    """docs/evaluation.md, in standard deviations between trainings."""
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text("utf-8")
    for k in (2, 3, 4, 5, 10):
        half = stats.t.ppf(0.975, k - 1) / math.sqrt(k)
        counts = stats.t.ppf(0.975, 2 * k - 2) * math.sqrt(2 / k)  # equal spreads
        alone = stats.t.ppf(0.975, k - 1) * math.sqrt(1 + 1 / k)
        assert f"| {k} | {half:.1f} s | {counts:.1f} s | {alone:.1f} s |" in page
