"""Copies are found out, fresh pictures are not, and the figures equal their definitions."""

import math

import numpy as np
import pytest
import torch

from tessera.errors import ConfigError, DataError
from tessera.evaluate import distances, memorisation
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.memorisation import (
    ADVICE,
    Nearness,
    authenticity,
    c_t,
    long_share,
    longest_run,
    membership_auc,
    near_share,
    nearest,
    nearest_other,
    nearness,
    verdict,
)


def pictures(n: int, seed: int, dim: int = 6) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def spelled_nearest(a: torch.Tensor, b: torch.Tensor, same: bool = False) -> tuple[list[int], list[float]]:
    index, distance = [], []
    for i, x in enumerate(a.double()):
        gaps = [math.inf if same and i == j else float((x - y).norm()) for j, y in enumerate(b.double())]
        index.append(int(np.argmin(gaps)))
        distance.append(min(gaps))
    return index, distance


CASES = {
    "random": (pictures(30, 0), pictures(20, 1), pictures(25, 2)),
    "few": (pictures(3, 0), pictures(2, 1), pictures(4, 2)),
    "one drawing": (pictures(10, 0), pictures(1, 1), pictures(1, 2)),
    "identical": (torch.ones(5, 3), torch.ones(4, 3), torch.ones(6, 3)),
    "copies": (pictures(30, 0), pictures(20, 1), pictures(30, 0)[:12]),
    "twins in training": (pictures(15, 0).repeat(2, 1), pictures(20, 1), pictures(30, 0)[:12]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rows", [2048, 7])
def test_nearest_equals_the_definition(case: str, rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distances, "ROWS", rows)
    training, _, drawn = CASES[case]
    for found, wanted in (
        (nearest(drawn, training), spelled_nearest(drawn, training)),
        (nearest_other(training), spelled_nearest(training, training, same=True)),
    ):
        assert found[0].tolist() == wanted[0]
        assert found[1].tolist() == pytest.approx(wanted[1], abs=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_shares_equal_their_definitions(case: str):
    training, _, drawn = CASES[case]
    index, distance = spelled_nearest(drawn, training)
    among = spelled_nearest(training, training, same=True)[1]
    authentic = np.mean([d > among[i] for i, d in zip(index, distance, strict=True)])
    assert authenticity(training, drawn).value == pytest.approx(authentic)
    limit = sorted(among)[int(0.01 * (len(among) - 1))]
    assert near_share(training, drawn).value == pytest.approx(np.mean([d <= limit for d in distance]))


def spelled_c_t(training: torch.Tensor, held: torch.Tensor, drawn: torch.Tensor) -> float:
    near, far = spelled_nearest(held, training)[1], spelled_nearest(drawn, training)[1]
    u = sum((y > x) + 0.5 * (y == x) for x in near for y in far)
    n, m = len(far), len(near)
    return (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)


@pytest.mark.parametrize("case", CASES)
def test_c_t_equals_the_definition(case: str):
    training, held, drawn = CASES[case]
    assert c_t(training, held, drawn, cells=1).value == pytest.approx(spelled_c_t(training, held, drawn))


def test_c_t_in_cells_is_the_weighted_mean_over_cells():
    pytest.importorskip("sklearn", reason="scikit-learn comes with the judge extra")
    places = torch.eye(6)[:3] * 40
    training, held, drawn = (
        torch.cat([pictures(n, seed + k) * (1 + k) + places[k] for k, n in enumerate(counts)])
        for seed, counts in ((0, (60, 50, 40)), (10, (30, 40, 25)), (20, (25, 45, 10)))
    )
    cells = [[slice(0, 60), slice(60, 110), slice(110, 150)], [slice(0, 30), slice(30, 70), slice(70, 95)]]
    cells.append([slice(0, 25), slice(25, 70), slice(70, 80)])
    scores = [spelled_c_t(training[cells[0][k]], held[cells[1][k]], drawn[cells[2][k]]) for k in range(2)]
    found = c_t(training, held, drawn)  # ten drawings are too few for the third cell
    assert found.value == pytest.approx((30 * scores[0] + 40 * scores[1]) / 70)
    assert found.high - found.value == pytest.approx(1.96 * math.hypot(30, 40) / 70)


def test_c_t_tells_copies_from_fresh_pictures_from_strange_ones():
    training, held = pictures(200, 0), pictures(100, 1)
    assert c_t(training, held, training[:100] + 0.01, cells=1).value < -8
    assert abs(c_t(training, held, pictures(100, 2), cells=1).value) < 3
    assert c_t(training, held, pictures(100, 2) * 4, cells=1).value > 8
    with pytest.raises(DataError, match="one of the two is missing"):
        c_t(training, held[:0], training)


def test_c_t_works_in_components_where_there_are_many_channels():
    training, held, drawn = pictures(40, 0, 100), pictures(30, 1, 100), pictures(30, 2, 100)
    assert abs(c_t(training, held, drawn, cells=1, components=5).value) < 4


def test_too_few_training_pictures_are_a_sentence():
    for measure in (authenticity, near_share):
        with pytest.raises(DataError, match="at least 2 of them; there are 1"):
            measure(pictures(1, 0), pictures(3, 1))
    with pytest.raises(DataError, match="at least 1 of them; there are 0"):
        nearest(pictures(3, 1), pictures(0, 0))


def test_a_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    with pytest.raises(ConfigError, match=r"pip install 'tessera-t2i\[judge\]'"):
        c_t(pictures(9, 0), pictures(9, 1), pictures(9, 2))


# Codes.


def spelled_run(codes: list[int], training: list[list[int]]) -> int:
    best = 0
    for other in training:
        run = 0
        for a, b in zip(codes, other, strict=True):
            run = run + 1 if a == b else 0
            best = max(best, run)
    return best


@pytest.mark.parametrize("block", [1 << 21, 10])
def test_longest_run_equals_the_definition(block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memorisation, "BLOCK", block)
    noise = torch.Generator().manual_seed(0)
    codes, training = (torch.randint(0, 3, (n, 12), generator=noise) for n in (9, 14))
    training[3] = codes[5]
    found = longest_run(codes, training)
    assert found.tolist() == [spelled_run(c, training.tolist()) for c in codes.tolist()]
    assert found[5] == 12
    assert long_share(torch.tensor([6, 7, 0, 12]), 12).value == 0.5


def test_membership_is_an_auc():
    assert membership_auc([3, 4, 5], [0, 1, 2]).value == 1
    assert membership_auc([1, 2], [1, 2]).value == 0.5


# The verdict.


def judged(training: torch.Tensor, held: torch.Tensor, drawn: torch.Tensor, shared: float = 0.0):
    """The verdict on drawings whose codes, of 16 places, equal a training picture's in that share of the pictures."""
    noise = torch.Generator().manual_seed(5)
    codes = [torch.randint(0, 50, (len(x), 16), generator=noise) for x in (training, held, drawn)]
    copied = round(shared * len(drawn))
    codes[2][:copied] = codes[0][torch.arange(copied) % len(training)]
    return verdict(
        nearness(training, drawn, codes[0], codes[2]),
        nearness(training, held, codes[0], codes[1]),
        c_t(training, held, drawn, cells=1),
    )


def test_exact_copies_are_called_copies():
    training, held = pictures(60, 0), pictures(80, 1)
    found = judged(training, held, training.repeat(3, 1), shared=1.0)
    assert found.word == "copies"
    assert "100% of the drawings lie as near to a training picture" in found.reason
    assert "share more than half of their codes" in found.reason
    assert found.reason.endswith(ADVICE["copies"])


def test_copied_codes_alone_are_copies():
    assert judged(pictures(60, 0), pictures(80, 1), pictures(100, 2), shared=0.6).word == "copies"


def test_fresh_pictures_are_drawn_anew():
    for seed in range(2, 12):
        found = judged(pictures(300, 0), pictures(80, 1), pictures(200, seed))
        assert found.word == "draws anew", found.reason
    assert judged(pictures(300, 0), pictures(80, 1), pictures(200, 2) * 9).word == "draws anew"


def test_pictures_that_stay_close_lean():
    training, held = pictures(200, 0), pictures(80, 1)
    close = training + 0.35 * pictures(200, 2)
    found = judged(training, held, close)
    assert found.word == "leans on its pictures"
    assert found.reason.endswith(ADVICE["leans on its pictures"])
    assert "more pictures" in found.reason


def test_few_pictures_are_no_ground_for_much():
    found = judged(pictures(60, 0), pictures(5, 1), pictures(6, 2))
    assert "only 5 pictures to judge by" in found.reason


def test_the_reason_names_what_decided():
    sure, none = Estimate(0.9, 0.8, 1.0, 100), Estimate(0.0, 0.0, 0.03, 100)
    fresh = Nearness(near=none, authentic=sure, runs=none)
    assert "C_T is -5.0" in verdict(fresh, fresh, Estimate(-5, -7, -3, 100)).reason
    leaning = verdict(Nearness(near=none, authentic=none, runs=none), fresh, Estimate(0, -2, 2, 100))
    assert leaning.word == "leans on its pictures"
    assert "0% of the drawings are authentic, 90% of the held-out pictures are" in leaning.reason
