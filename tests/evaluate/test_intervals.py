"""Intervals hold what they promise, and say so where nothing was measured."""

import dataclasses
import json
import math

import numpy as np
import pytest

from tessera.errors import DataError
from tessera.evaluate.intervals import Estimate, auc, bootstrap, over_seeds, share


def test_estimates_travel_as_json():
    e = Estimate(0.5, 0.25, 0.75, 8)
    assert Estimate(**json.loads(json.dumps(dataclasses.asdict(e)))) == e


def test_bootstrap_of_a_mean_is_the_textbook_interval():
    values = np.random.default_rng(0).normal(3, 2, 400)
    e = bootstrap(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert e.value == pytest.approx(values.mean())
    assert (e.low, e.high) == pytest.approx((e.value - half, e.value + half), abs=0.15 * half)
    assert e == bootstrap(values) != bootstrap(values, seed=1)


def test_bootstrap_takes_any_statistic_of_rows():
    rows = np.arange(12.0).reshape(6, 2)
    assert bootstrap(rows, lambda r: r[:, 1].max(), rounds=50).value == 11


def test_one_row_has_no_width_and_none_is_refused():
    assert bootstrap([2.0]) == Estimate(2.0, 2.0, 2.0, 1)
    for measure in (bootstrap, share):
        with pytest.raises(DataError, match="no picture is left"):
            measure([])
    with pytest.raises(DataError, match="1 of 2 measured values are NaN"):
        share([1, math.nan])


def test_the_interval_of_a_share_covers_the_truth_as_often_as_it_says():
    noise = np.random.default_rng(0)
    for truth in (0.02, 0.3, 0.9):
        found = [share(noise.random(100) < truth) for _ in range(400)]
        assert np.mean([e.low <= truth <= e.high for e in found]) > 0.91


def test_a_share_of_none_or_all_is_not_certain():
    assert share([False] * 500).high == pytest.approx(0.0076, abs=2e-4)  # 1.96² / (500 + 1.96²)
    assert share([True]).low < 0.3


def test_auc_is_the_share_of_pairs_in_order():
    noise = np.random.default_rng(0)
    a, b = noise.integers(0, 6, 30), noise.integers(0, 5, 20)  # with ties
    pairs = np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b])
    assert auc(a, b).value == pytest.approx(pairs)
    assert auc([1, 1], [1, 1]) == Estimate(0.5, 0.5, 0.5, 2)
    assert auc([2], [1]).value == 1


def test_the_interval_over_seeds_covers_the_seeds_and_each_seeds_own_doubt():
    seeds = [Estimate(v, v - 1, v + 3, 50) for v in (10.0, 12.0, 14.0)]
    e = over_seeds(seeds)
    assert e.value == pytest.approx(12)
    assert e.low == pytest.approx(12 - math.hypot(1, 4.303 * 2 / math.sqrt(3)))
    assert e.high == pytest.approx(12 + math.hypot(3, 4.303 * 2 / math.sqrt(3)))
    assert e.count == 150
    assert all(e.low < s.value < e.high for s in seeds)
    assert over_seeds(seeds, least=11, most=13).high == 13
    assert over_seeds(seeds[:1]) == seeds[0]
    with pytest.raises(DataError, match="No seed"):
        over_seeds([])
