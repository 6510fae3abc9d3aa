"""Distances equal their spelled-out definitions and torchmetrics, on ordinary and on degenerate sets."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tessera.errors import DataError
from tessera.evaluate import distances
from tessera.evaluate.distances import (
    class_agreement,
    frechet,
    frechet_estimate,
    frechet_name,
    kid,
    named,
    prdc,
    squared_distances,
    ssim,
    subject_classes,
    subject_rate,
)


def sets(n: int = 60, m: int = 40, dim: int = 8, apart: float = 0.7) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(0)
    return torch.randn(n, dim, generator=noise), torch.randn(m, dim, generator=noise) * 1.3 + apart


class Given(torch.nn.Module):
    """For torchmetrics: the features of a picture are its number's row."""

    def __init__(self, rows: torch.Tensor):
        super().__init__()
        self.rows = rows

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.rows[: len(numbers)]


# KID.


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kid_is_that_of_torchmetrics():
    image = pytest.importorskip("torchmetrics.image.kid")
    a, b = sets(50, 50)
    metric = image.KernelInceptionDistance(feature=Given(a), subsets=1, subset_size=50)
    metric.update(torch.zeros(50, 3, 1, 1, dtype=torch.uint8), real=True)
    metric.inception.rows = b
    metric.update(torch.zeros(50, 3, 1, 1, dtype=torch.uint8), real=False)
    assert kid(a, b, subsets=1, size=50).value == pytest.approx(float(metric.compute()[0]), abs=1e-5)


def spelled_kid(a: torch.Tensor, b: torch.Tensor) -> float:
    def k(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    n, m = len(a), len(b)
    own = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return own + other - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


def test_kid_and_its_jackknife_equal_the_definitions():
    a, b = (x.double() for x in sets(7, 5, 3))
    assert kid(a, b, subsets=1).value != pytest.approx(spelled_kid(a, b))  # five of the seven
    assert kid(a[:5], b, subsets=1).value == pytest.approx(spelled_kid(a[:5], b))
    total = 0.0
    for without in (
        [spelled_kid(torch.cat((a[:i], a[i + 1 :])), b) for i in range(7)],
        [spelled_kid(a, torch.cat((b[:i], b[i + 1 :]))) for i in range(5)],
    ):
        total += (len(without) - 1) / len(without) * sum((v - np.mean(without)) ** 2 for v in without)
    e = kid(a, b)
    assert e.high - e.value == pytest.approx(1.96 * math.sqrt(total))


def test_kid_of_one_world_is_none_and_grows_with_the_distance():
    a, b = sets(200, 200, apart=0.0)
    same = kid(a[:100], a[100:])
    assert same.low < 0 < same.high
    assert same.high < kid(a, b).value < kid(a, b + 1).value
    assert kid(a, b) == kid(a, b)


def test_intervals_of_kid_cover_the_truth():
    noise = torch.Generator().manual_seed(1)
    many = [(torch.randn(60, 4, generator=noise), torch.randn(60, 4, generator=noise) + 0.5) for _ in range(100)]
    large = kid(
        torch.randn(2000, 4, generator=noise), torch.randn(2000, 4, generator=noise) + 0.5, size=2000, subsets=1
    )
    assert np.mean([e.low <= large.value <= e.high for e in (kid(a, b, subsets=20, size=50) for a, b in many)]) > 0.9


def test_identical_pictures_have_a_kid_and_two_have_none():
    same = torch.ones(10, 4)
    assert kid(same, same).value == pytest.approx(0)
    with pytest.raises(DataError, match="at least 3 pictures in each set; there are 2 and 10"):
        kid(same[:2], same)


# Fréchet.


def test_frechet_is_the_fid_of_torchmetrics():
    image = pytest.importorskip("torchmetrics.image.fid")
    a, b = sets()
    metric = image.FrechetInceptionDistance(feature=Given(a.double()), input_img_size=(3, 1, 1)).set_dtype(
        torch.float64
    )
    metric.update(torch.zeros(len(a), 3, 1, 1, dtype=torch.uint8), real=True)
    metric.inception.rows = b.double()
    metric.update(torch.zeros(len(b), 3, 1, 1, dtype=torch.uint8), real=False)
    assert frechet(a, b, components=None) == pytest.approx(float(metric.compute()), abs=1e-5)


def test_frechet_equals_the_definition_on_the_photographs_components():
    a, b = (x.double().numpy() for x in sets(dim=10))
    values, vectors = np.linalg.eigh(np.cov(a.T))
    axes = vectors[:, np.argsort(-values)[:4]]
    p, q = a @ axes, b @ axes
    root = np.sqrt(np.linalg.eigvals(np.cov(p.T) @ np.cov(q.T)).astype(complex)).real.sum()
    wanted = ((p.mean(0) - q.mean(0)) ** 2).sum() + np.trace(np.cov(p.T)) + np.trace(np.cov(q.T)) - 2 * root
    assert frechet(torch.tensor(a), torch.tensor(b), components=4) == pytest.approx(wanted)


@pytest.mark.parametrize(("n", "m", "dim"), [(2, 2, 5), (3, 60, 8), (40, 20, 64)])
def test_frechet_of_singular_covariances_is_a_number(n: int, m: int, dim: int):
    a, b = sets(n, m, dim)
    for components in (64, None):
        value = frechet(a, b, components)
        assert 0 <= value < math.inf
        assert frechet(a, a.clone(), components) == pytest.approx(0, abs=1e-9)
    assert frechet(torch.ones(5, 3), torch.ones(4, 3)) == 0
    with pytest.raises(DataError, match="at least 2"):
        frechet(a, b[:1])


def test_frechet_estimate_surrounds_the_value():
    a, b = sets(200, 200)
    e = frechet_estimate(a, b)
    assert e.low < e.value == frechet(a, b) < e.high
    assert e.high - e.low < e.value


def test_only_the_fids_own_weights_unreduced_are_called_fid():
    assert named("KID", "Lite2") == "KID-Lite2"
    assert frechet_name("Lite2", 64) == "FD64-Lite2"
    assert frechet_name("Lite2", None) == "FD-Lite2"
    assert frechet_name("Inception", 64) == "FD64-Inception"
    assert frechet_name("Inception-0123abcd", None) == "FD-Inception-0123abcd"
    assert frechet_name("Inception", None) == "FID"


# Precision, recall, density, coverage.


def spelled_prdc(real: np.ndarray, drawn: np.ndarray, nearest: int) -> dict[str, float]:
    def reach(points: np.ndarray, i: int) -> float:
        others = sorted(np.linalg.norm(points[i] - points[j]) for j in range(len(points)) if j != i)
        return others[min(nearest, len(others)) - 1] if others else 0.0

    r, d = [reach(real, i) for i in range(len(real))], [reach(drawn, j) for j in range(len(drawn))]
    gap = [[np.linalg.norm(x - y) for y in drawn] for x in real]
    rows, columns = range(len(real)), range(len(drawn))
    k = max(1, min(nearest, len(real) - 1))
    return {
        "precision": float(np.mean([any(gap[i][j] <= r[i] for i in rows) for j in columns])),
        "recall": float(np.mean([any(gap[i][j] <= d[j] for j in columns) for i in rows])),
        "density": sum(gap[i][j] <= r[i] for i in rows for j in columns) / (k * len(drawn)),
        "coverage": float(np.mean([min(gap[i]) <= r[i] for i in rows])),
    }


CASES = {
    "random": sets(60, 40, 3),
    "far": sets(30, 30, 3, apart=50.0),
    "few": sets(4, 3, 3),
    "one drawing": sets(20, 1, 3),
    "one photograph": sets(1, 20, 3),
    "one of each": sets(1, 1, 3),
    "identical": (torch.ones(6, 3), torch.ones(5, 3)),
    "copies": (sets(20)[0], sets(20)[0].clone()),
    "copies of one": (sets(20)[0], sets(20)[0][:1].repeat(9, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_prdc_equals_the_definition(case: str):
    real, drawn = CASES[case]
    found = prdc(real, drawn)
    assert {k: e.value for k, e in found.items()} == pytest.approx(
        spelled_prdc(real.double().numpy(), drawn.double().numpy(), 5)
    )
    assert all(e.low <= e.value <= e.high for e in found.values())


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    a, b = sets(50, 33)
    whole = prdc(a, b)
    monkeypatch.setattr(distances, "ROWS", 7)
    assert prdc(a, b) == whole
    parts = torch.zeros(50, 33, dtype=torch.float64)
    for rows, columns, squared in squared_distances(a, b):
        parts[rows, columns] = squared
    assert_close(parts, torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2)


# Classes.


def test_the_subject_is_what_nine_in_ten_photographs_show():
    top = [3] * 6 + [1] * 3 + [0] * 1  # 60 %, 30 %, 10 %
    photographs = torch.full((10, 5), 0.05)
    photographs[range(10), top] = 0.8
    assert subject_classes(photographs).tolist() == [3, 1]
    others = torch.tensor([[0.0, 0.3, 0.3, 0.3, 0.1], [0.4, 0.2, 0.2, 0.2, 0.0]])  # 60 % and 40 % on 1 and 3
    assert subject_rate(photographs, others).value == 0.5
    assert subject_rate(photographs, photographs).value == 0.9
    assert subject_classes(photographs[:1]).tolist() == [3]


def test_class_agreement_looks_for_the_first_class_among_five():
    original = torch.eye(8)[[0, 1]]
    again = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.0, 0.0, 0.0], [0.3, 0.1, 0.4, 0.5, 0.6, 0.7, 0.0, 0.0]])
    assert class_agreement(original, again).value == 0.5
    assert class_agreement(original[:, :3], original[:, :3]).value == 1


# SSIM.


@pytest.mark.parametrize(("side", "channels"), [(24, 3), (11, 1)])
def test_ssim_is_that_of_torchmetrics(side: int, channels: int):
    functional = pytest.importorskip("torchmetrics.functional.image")
    noise = torch.Generator().manual_seed(0)
    a = torch.rand(3, channels, side, side, generator=noise)
    b = (a + 0.2 * torch.rand(a.shape, generator=noise)).clamp(0, 1)
    _, whole = functional.structural_similarity_index_measure(b, a, data_range=1.0, return_full_image=True)
    inside = whole[..., 5:-5, 5:-5]  # torchmetrics mirrors pictures at their edges; Wang et al. leave these places out
    assert ssim(a, b).value == pytest.approx(float(inside.mean()), abs=1e-5)
    assert ssim(a, a).value == pytest.approx(1)


def test_ssim_of_small_pictures_uses_a_smaller_window():
    picture = torch.rand(2, 3, 8, 8)
    assert 0.2 < ssim(picture, picture * 0.8 + 0.1).value < ssim(picture, picture).value == pytest.approx(1)
