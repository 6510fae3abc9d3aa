"""How far sets of pictures lie from each other, by what a network sees in them. It knows no networks and no files."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tessera.errors import DataError
from tessera.evaluate.intervals import NORMAL, Estimate, bootstrap, share

ROWS = 2048
"""Pictures compared with as many others at a time: 32 MiB of distances."""
SAME = 1e-10
"""Squared distances below this share of the squared lengths are rounding: such pictures are the same."""


def named(figure: str, network: str) -> str:
    """A figure with the network that saw: KID-Lite2."""
    return f"{figure}-{network}"


def frechet_name(network: str, components: int | None) -> str:
    """FD64-Lite2; FD-Lite2 of all channels; and FID for all 2,048 of the FID's own weights alone."""
    if network == "Inception" and components is None:
        return "FID"
    return named(f"FD{components or ''}", network)


# Two sets.


def kid(
    a: Float[Tensor, "N D"], b: Float[Tensor, "M D"], subsets: int = 100, size: int = 100, seed: int = 0
) -> Estimate:
    """Kernel distance (Binkowski et al. 2018): the unbiased squared MMD with the kernel (x·y / D + 1)³, averaged over
    random subsets of both sets. It may be negative. Often printed times 1,000.

    The interval is the jackknife's over pictures (Arvesen 1969), of at most `ROWS` of each set. Raises DataError for
    fewer than 3 pictures.
    """
    if min(len(a), len(b)) < 3:
        raise DataError(f"KID needs at least 3 pictures in each set; there are {len(a)} and {len(b)}.")
    a, b, size = a.double(), b.double(), min(size, len(a), len(b))
    noise = np.random.default_rng(seed)
    parts = ((noise.permutation(len(a))[:size], noise.permutation(len(b))[:size]) for _ in range(subsets))
    value = float(np.mean([_mmd(*_kernels(a[i], b[j])) for i, j in parts]))
    half = NORMAL * _jackknife(a[:ROWS], b[:ROWS])
    return Estimate(value, value - half, value + half, min(len(a), len(b)))


def _kernels(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of a with a, b with b, and a with b; no picture with itself."""
    aa, bb, ab = ((x @ y.T / x.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    return aa.fill_diagonal_(0), bb.fill_diagonal_(0), ab


def _mmd(aa: Tensor, bb: Tensor, ab: Tensor) -> float:
    n, m = len(aa), len(bb)
    return float(aa.sum() / (n * (n - 1)) + bb.sum() / (m * (m - 1)) - 2 * ab.sum() / (n * m))


def _jackknife(a: Tensor, b: Tensor) -> float:
    """Standard error of the squared MMD, from its values without each one picture."""
    aa, bb, ab = _kernels(a, b)

    def variance(own: Tensor, cross: Tensor) -> Tensor:  # [N, N], [N, M]
        n, m = cross.shape
        without = (own.sum() - 2 * own.sum(1)) / ((n - 1) * (n - 2)) - 2 * (cross.sum() - cross.sum(1)) / ((n - 1) * m)
        return (n - 1) ** 2 / n * without.var()

    return math.sqrt(float(variance(aa, ab) + variance(bb, ab.T)))


def frechet(photographs: Float[Tensor, "N D"], others: Float[Tensor, "M D"], components: int | None = 64) -> float:
    """Fréchet distance of two Gaussians (Heusel et al. 2017), on the first principal components of the photographs, at
    most one less than there are photographs; on all channels for None.

    The trace of the root of a product of covariances is the sum of the singular values of the product of their roots,
    which exists where a covariance is singular too. Raises DataError for fewer than 2 pictures.
    """
    return _frechet(*_projected(photographs, others, components))


def frechet_estimate(
    photographs: Float[Tensor, "N D"], others: Float[Tensor, "M D"], components: int | None = 64, rounds: int = 50,
    seed: int = 0,
) -> Estimate:  # fmt: skip
    """With a normal interval by the spread over samples drawn again; these lie higher themselves, because repeated
    pictures make covariances narrower."""
    a, b = _projected(photographs, others, components)
    value, noise = _frechet(a, b), np.random.default_rng(seed)
    again = [_frechet(*(x[noise.integers(len(x), size=len(x))] for x in (a, b))) for _ in range(rounds)]
    half = NORMAL * float(np.std(again, ddof=1))
    return Estimate(value, max(0.0, value - half), value + half, min(len(a), len(b)))


def _projected(a: Tensor, b: Tensor, components: int | None) -> tuple[Tensor, Tensor]:
    if min(len(a), len(b)) < 2:
        raise DataError(f"A Fréchet distance needs at least 2 pictures in each set; there are {len(a)} and {len(b)}.")
    middle = a.double().mean(0)
    a, b = a.double() - middle, b.double() - middle
    if components is None:
        return a, b
    axes = torch.linalg.svd(a, full_matrices=False).Vh[: min(components, len(a) - 1)].T  # [D, K]
    return a @ axes, b @ axes


def _frechet(a: Tensor, b: Tensor) -> float:
    roots = [torch.linalg.qr(x - x.mean(0), mode="r").R / math.sqrt(len(x) - 1) for x in (a, b)]  # RᵀR = covariance
    both = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    spread = sum(root.square().sum() for root in roots)
    return max(0.0, float((a.mean(0) - b.mean(0)).square().sum() + spread - 2 * both))


def prdc(real: Float[Tensor, "N D"], drawn: Float[Tensor, "M D"], nearest: int = 5) -> dict[str, Estimate]:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    A picture's neighbourhood reaches to its nearest-th neighbour in its own set, or to the farthest where there are
    fewer; that of a lone picture holds copies alone. Intervals are over the pictures that are counted: drawings for
    precision and density, photographs for recall and coverage. Compare only sets of the same sizes.
    """
    reach, reach_drawn = _reach(real, nearest), _reach(drawn, nearest)
    inside = torch.zeros(len(drawn))  # of how many photographs' neighbourhoods
    recalled, covered = torch.zeros(len(real), dtype=torch.bool), torch.zeros(len(real), dtype=torch.bool)
    for rows, columns, squared in squared_distances(real, drawn):
        near = squared <= reach[rows, None]
        inside[columns] += near.sum(0)
        covered[rows] |= near.any(1)
        recalled[rows] |= (squared <= reach_drawn[columns]).any(1)
    return {
        "precision": share(inside > 0),
        "recall": share(recalled),
        "density": bootstrap(inside / max(1, min(nearest, len(real) - 1))),
        "coverage": share(covered),
    }


def _reach(pictures: Tensor, nearest: int) -> Tensor:
    """Squared distance of each picture to its nearest-th neighbour in the same set."""
    wanted = min(nearest, len(pictures) - 1)
    if wanted < 1:
        return torch.zeros(len(pictures), dtype=torch.float64)
    best = torch.full((len(pictures), wanted), math.inf, dtype=torch.float64)
    for rows, columns, squared in squared_distances(pictures, pictures):
        squared[torch.arange(len(pictures))[rows, None] == torch.arange(len(pictures))[columns]] = math.inf
        best[rows] = torch.cat((best[rows], squared), 1).topk(wanted, largest=False).values
    return best[:, -1]


def squared_distances(a: Float[Tensor, "N D"], b: Float[Tensor, "M D"]) -> Iterator[tuple[slice, slice, Tensor]]:
    """Squared Euclidean distances block by block: rows of a, rows of b, and [rows, rows] in float64."""
    for i in range(0, len(a), ROWS):
        x = a[i : i + ROWS].double()
        for j in range(0, len(b), ROWS):
            y = b[j : j + ROWS].double()
            lengths = x.square().sum(1)[:, None] + y.square().sum(1)
            squared = lengths - 2 * x @ y.T
            yield slice(i, i + ROWS), slice(j, j + ROWS), torch.where(squared < SAME * lengths, 0.0, squared)


# Classes.

SUBJECT_SHARE, SUBJECT_PROBABILITY = 0.9, 0.5


def subject_classes(probabilities: Float[Tensor, "N C"]) -> Int[Tensor, " K"]:
    """What photographs show: the fewest classes that hold 90 % of their top-1, the most frequent first."""
    counts, classes = torch.bincount(probabilities.argmax(1)).sort(descending=True, stable=True)
    enough = int((counts.cumsum(0) < SUBJECT_SHARE * len(probabilities)).sum()) + 1
    return classes[:enough]


def subject_rate(photographs: Float[Tensor, "N C"], others: Float[Tensor, "M C"]) -> Estimate:
    """The share of pictures with at least half of the probability on the photographs' subject. (Texture alone often
    makes one of these classes the first, but rarely gives them half.)"""
    return share(others[:, subject_classes(photographs)].sum(1) >= SUBJECT_PROBABILITY)


def class_agreement(originals: Float[Tensor, "N C"], reconstructions: Float[Tensor, "N C"]) -> Estimate:
    """The share of reconstructions among whose five likeliest classes is the original's likeliest."""
    five = reconstructions.topk(min(5, reconstructions.shape[1])).indices
    return share((five == originals.argmax(1, keepdim=True)).any(1))


# Pairs of pictures.


def ssim(a: Float[Tensor, "B C S S"], b: Float[Tensor, "B C S S"]) -> Estimate:
    """Structural similarity of pairs in 0 ... 1 (Wang et al. 2004): windows of 11 px, or of what fits, with σ = 1.5,
    without padding; the mean over pictures."""
    side = min(11, a.shape[-1], a.shape[-2])
    bell = torch.exp(-((torch.arange(side) - (side - 1) / 2) ** 2) / (2 * 1.5**2)).double()
    window = (bell[:, None] * bell / bell.sum() ** 2)[None, None]

    def blurred(x: Tensor) -> Tensor:
        return F.conv2d(x.flatten(0, 1)[:, None], window).view(*x.shape[:2], -1)  # [B, C, P]

    values = []
    for x, y in zip(a.double().split(64), b.double().split(64), strict=True):
        mx, my = blurred(x), blurred(y)
        vx, vy, both = blurred(x * x) - mx * mx, blurred(y * y) - my * my, blurred(x * y) - mx * my
        same = (2 * mx * my + 0.01**2) * (2 * both + 0.03**2)
        values += (same / ((mx * mx + my * my + 0.01**2) * (vx + vy + 0.03**2))).mean((1, 2)).tolist()
    return bootstrap(values)
