"""Whether drawings are new: how near they come to training pictures, against pictures that were held out. It knows no
networks; pictures are rows of numbers, be it features or pixels.

Compare like with like: what a tokenizer loses is lost of drawings too, so training and held-out pictures should have
been through the tokenizer as well. Else even a perfect copy of a training picture's codes lies far from its photograph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor

from tessera.errors import ConfigError, DataError, install
from tessera.evaluate.distances import squared_distances
from tessera.evaluate.intervals import NORMAL, Estimate, auc, share


def nearest(
    drawn: Float[Tensor, "N D"], training: Float[Tensor, "M D"]
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """Of each drawing: the nearest training picture, the first of equally near ones, and its distance."""
    _enough(training, 1)
    return _nearest(drawn, training, torch.full((len(drawn),), -1))


def nearest_other(pictures: Float[Tensor, "N D"]) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """Of each picture: the nearest of all others, and its distance."""
    _enough(pictures, 2)
    return _nearest(pictures, pictures, torch.arange(len(pictures)))


def _enough(training: Tensor, least: int) -> None:
    if len(training) < least:
        raise DataError(f"Nearness to training pictures needs at least {least} of them; there are {len(training)}.")


def _nearest(a: Tensor, b: Tensor, but: Int[Tensor, " N"]) -> tuple[Tensor, Tensor]:
    """The nearest row of b for each row of a, except number `but`."""
    index, best = torch.zeros(len(a), dtype=torch.long), torch.full((len(a),), math.inf, dtype=torch.float64)
    for rows, columns, squared in squared_distances(a, b):
        squared[but[rows, None] == torch.arange(len(b))[columns]] = math.inf
        least, place = squared.min(1)
        nearer = least < best[rows]
        best[rows] = torch.where(nearer, least, best[rows])
        index[rows] = torch.where(nearer, place + columns.start, index[rows])
    return index, best.sqrt()


def c_t(
    training: Float[Tensor, "M D"], held: Float[Tensor, "P D"], drawn: Float[Tensor, "N D"], cells: int = 3,
    components: int = 64, least: int = 20,
) -> Estimate:  # fmt: skip
    """C_T, the data-copying test of Meehan et al. (2020): far below 0 where drawings lie nearer to training pictures
    than held-out ones do, far above 0 where they lie farther away.

    It is the Mann-Whitney statistic of distances to the nearest training picture, as a z-score, in each k-means cell of
    the training pictures on their first principal components; the mean over cells, weighted by held-out pictures.
    Cells with fewer than `least` drawings or held-out pictures are left out; where all are, the whole is one cell.
    The interval is that of the score's own noise. Needs scikit-learn where `cells` is above 1.
    """
    _enough(training, 1)
    if not len(held) or not len(drawn):
        raise DataError("C_T compares drawings with held-out pictures; one of the two is missing.")
    middle = training.double().mean(0)
    sets = [x.double() - middle for x in (training, held, drawn)]
    if training.shape[1] > components:
        axes = torch.linalg.svd(sets[0], full_matrices=False).Vh[:components].T
        sets = [x @ axes for x in sets]
    labels = _cells(sets, cells)
    scores, weights = [], []
    for cell in range(cells):
        inside = [x[label == cell] for x, label in zip(sets, labels, strict=True)]
        if min(len(inside[1]), len(inside[2])) >= least and len(inside[0]):
            scores.append(_z(*inside))
            weights.append(len(inside[1]))
    if not scores:
        scores, weights = [_z(*sets)], [len(held)]
    weight = np.array(weights) / sum(weights)
    value, half = float(weight @ np.array(scores)), NORMAL * float(np.sqrt((weight**2).sum()))
    return Estimate(value, value - half, value + half, min(len(held), len(drawn)))


def _cells(sets: Sequence[Tensor], cells: int) -> list[Tensor]:
    """The k-means cell of each picture of each set; the first set makes the cells."""
    if cells == 1 or len(sets[0]) < cells:
        return [torch.zeros(len(x), dtype=torch.long) for x in sets]
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ConfigError(f"C_T in cells needs scikit-learn: {install('judge')}.") from error
    distinct = min(cells, len(torch.unique(sets[0], dim=0)))
    means = KMeans(distinct, n_init=10, random_state=0).fit(sets[0].numpy())  # type: ignore[arg-type]  # says "auto"
    return [torch.from_numpy(np.asarray(means.predict(x.numpy()), dtype=np.int64)) for x in sets]


def _z(training: Tensor, held: Tensor, drawn: Tensor) -> float:
    """The z-score of Mann and Whitney's U: how many pairs have the drawing farther from training than the held-out."""
    far, near = nearest(drawn, training)[1].numpy(), nearest(held, training)[1].numpy()
    n, m = len(far), len(near)
    return (auc(far, near).value - 0.5) * n * m / math.sqrt(n * m * (n + m + 1) / 12)


def authenticity(training: Float[Tensor, "M D"], drawn: Float[Tensor, "N D"]) -> Estimate:
    """The share of drawings that are authentic (Alaa et al. 2022): farther from their nearest training picture than
    that one is from the nearest other training picture."""
    index, distance = nearest(drawn, training)
    return share(distance > nearest_other(training)[1][index])


def near_share(training: Float[Tensor, "M D"], drawn: Float[Tensor, "N D"]) -> Estimate:
    """The share of drawings that lie as near to a training picture as only 1 % of the training pictures lie to another
    one. Of pictures that were held out it is about 1 %."""
    limit = torch.quantile(nearest_other(training)[1], 0.01, interpolation="lower")
    return share(nearest(drawn, training)[1] <= limit)


# Codes.

BLOCK = 1 << 21
"""Pairs of pictures whose runs are followed at a time."""


def longest_run(codes: Int[Tensor, "B N"], training: Int[Tensor, "M N"]) -> Int[Tensor, " B"]:
    """Of each picture: the longest run of codes that it shares, at the same places, with any one training picture."""
    _enough(training, 1)
    found, ours = [], training.to(torch.int32)
    for part in codes.to(torch.int32).split(max(1, BLOCK // len(training))):
        run = torch.zeros(len(part), len(training), dtype=torch.int16)
        best = torch.zeros_like(run)
        for place in range(codes.shape[1]):
            run = (run + 1) * (part[:, place, None] == ours[None, :, place])
            best = torch.maximum(best, run)
        found.append(best.amax(1).long())
    return torch.cat(found)


def long_share(runs: Int[Tensor, " B"], places: int) -> Estimate:
    """The share of pictures with more than half of their codes in one run that a training picture has too."""
    return share(runs > places / 2)


def membership_auc(training: ArrayLike, held: ArrayLike) -> Estimate:
    """How well the model's own score (log-likelihood) tells training pictures from held-out ones: 0.5 not at all, 1
    always (Yeom et al. 2018)."""
    return auc(training, held)


# The verdict.


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """How near a set of pictures comes to the training pictures."""

    near: Estimate
    """`near_share`."""
    authentic: Estimate
    """`authenticity`."""
    runs: Estimate
    """`long_share`."""


def nearness(
    training: Float[Tensor, "M D"], pictures: Float[Tensor, "B D"], training_codes: Int[Tensor, "L N"],
    codes: Int[Tensor, "B N"],
) -> Nearness:  # fmt: skip
    """All three of a set of pictures."""
    return Nearness(
        near=near_share(training, pictures),
        authentic=authenticity(training, pictures),
        runs=long_share(longest_run(codes, training_codes), codes.shape[1]),
    )


Word = Literal["draws anew", "leans on its pictures", "copies"]


@dataclass(frozen=True)
class Verdict:
    """A word and the sentence that says why."""

    word: Word
    reason: str


ADVICE: dict[Word, str] = {
    "draws anew": "",
    "leans on its pictures": " What to do: look at the drawings beside their nearest training pictures before you show "
    "them. With more pictures, or less time for the prior, it leans less.",
    "copies": " What to do: show no drawing before you saw what it is nearest to. Train anew with more pictures, or "
    "less time for the prior; one of any order (learn --any-order) learns less by heart.",
}
TENTH, SCORE, FEW = 0.1, -3.0, 64
RULE = (
    "A model copies if, for sure, a tenth more of its drawings than of held-out pictures lie nearer to a training "
    "picture than 99 % of the training pictures lie to each other, or share a run of more than half of their codes "
    "with one. It leans on its pictures if either share is larger than that of held-out pictures at all, beyond noise, "
    "or if fewer drawings are authentic, or if C_T is below -3. Else it draws anew, which does not say that it draws "
    "well."
)
"""How `verdict` decides. For sure, and beyond noise: the 95 % intervals do not meet."""


def verdict(drawn: Nearness, held: Nearness, copying: Estimate) -> Verdict:
    """The word for drawings with this nearness, against that of held-out pictures. `copying` is `c_t`."""
    near = f"{drawn.near.value:.0%} of the drawings lie as near to a training picture as 1 % of the training pictures "
    near += f"do to each other, {held.near.value:.0%} of the held-out pictures do"
    runs = f"{drawn.runs.value:.0%} of the drawings share more than half of their codes in one run with a training "
    runs += f"picture, {held.runs.value:.0%} of the held-out pictures do"
    authentic = (
        f"{drawn.authentic.value:.0%} of the drawings are authentic, {held.authentic.value:.0%} of the held-out "
    )
    authentic += "pictures are"
    shares = [(near, drawn.near.low - held.near.high), (runs, drawn.runs.low - held.runs.high)]
    copied = [said for said, more in shares if more > TENTH]
    leaning = [said for said, more in shares if more > 0]
    if drawn.authentic.high < held.authentic.low:
        leaning.append(authentic)
    if copying.value < SCORE:
        leaning.append(f"C_T is {copying.value:.1f}: drawings lie nearer to training pictures than held-out ones do")
    word: Word = "copies" if copied else "leans on its pictures" if leaning else "draws anew"
    reason = "; ".join(copied or leaning or [near, authentic])
    few = min(drawn.near.count, held.near.count)
    doubt = f" There are only {few} pictures to judge by, so little can be said." if few < FEW else ""
    return Verdict(word, f"{reason[0].upper()}{reason[1:]}.{doubt}{ADVICE[word]}")
