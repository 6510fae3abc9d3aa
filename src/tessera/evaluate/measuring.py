"""Looks and nats in, figures out: one function for each group of the table. It reads no files and draws nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.evaluate import distances, metrics
from tessera.evaluate.distances import named
from tessera.evaluate.figures import Figure
from tessera.evaluate.intervals import Estimate, bootstrap, over_seeds, share
from tessera.evaluate.looking import Look, floats, spread
from tessera.evaluate.meanings import MEANINGS

REFERENCE = 5000
"""Learned pictures that sets are compared with, at most."""
FEWEST = 3
"""Pictures in each set that distances need."""
NEAREST = 5
"""Neighbours that bound a picture's surroundings, in precision, recall, density and coverage."""
COMPONENTS = 64
"""Of the Fréchet distance: a covariance of more channels than pictures says nothing."""


def exact(value: float, count: int) -> Estimate:
    """A figure that is known and not estimated."""
    return Estimate(value, value, value, count)


# Likelihood.


def likelihood(held: Tensor, learned: Tensor | None, floor: Tensor) -> list[Figure]:
    """Of nats [B, N] of held-out and of learned pictures, and of the unigram predictor's on the held-out ones."""

    def line(name: str, scale: float, meaning: str) -> Figure:
        own, below, above = (
            None if x is None else bootstrap(x.sum(1).double().numpy() * scale) for x in (held, floor, learned)
        )
        assert own is not None
        return Figure(
            name=name, group="likelihood", value=own, floor=below, ceiling=above, better="lower",
            about=MEANINGS[meaning],
        )  # fmt: skip

    return [line("nats per code", 1 / held.shape[1], "nats"), line("bits per picture", 1 / math.log(2), "bits")]


def in_any_order(reading: Tensor, chance: Tensor) -> list[Figure]:
    """Of nats [B, N] of held-out pictures in reading order, and [B, N] as means over orders of chance."""
    own = bootstrap(chance.sum(1).double().numpy() / chance.shape[1])
    more = bootstrap((reading - chance).sum(1).double().numpy())
    return [
        Figure(
            name="nats per code, any order", group="likelihood", value=own, better="lower", about=MEANINGS["orders"]
        ),
        Figure(
            name="reading order against others, nats per picture", group="likelihood", value=more, better="lower",
            about=MEANINGS["reading"],
        ),
    ]  # fmt: skip


def caption_worth(true: Tensor, null: Tensor, other: Tensor | None) -> list[Figure]:
    """Of nats [B, N] of the same held-out pictures with their caption, with none, and with another picture's."""
    zero = exact(0.0, len(true))

    def line(name: str, without: Tensor, meaning: str) -> Figure:
        gained = bootstrap((without - true).sum(1).double().numpy())
        return Figure(name=name, group="caption", value=gained, floor=zero, about=MEANINGS[meaning])

    found = [line("caption against none, nats per picture", null, "none")]
    if other is not None:
        found.append(line("caption against another's, nats per picture", other, "other"))
    return found


def caption_ranks(ranks: Sequence[float], among: int) -> list[Figure]:
    """Of the true caption's ranks among so many, by the model's own likelihood of the picture."""
    count, best = len(ranks), exact(1.0, len(ranks))
    return [
        Figure(
            name=f"true caption's mean rank among {among}", group="caption", value=bootstrap(ranks), ceiling=best,
            floor=exact((among + 1) / 2, count), better="lower", about=MEANINGS["rank"],
        ),
        Figure(
            name=f"true caption first among {among}", group="caption", value=share([r < 1.5 for r in ranks]),
            ceiling=best, floor=exact(1 / among, count), about=MEANINGS["first"],
        ),
    ]  # fmt: skip


# The image tokenizer.


def tokenizer(pixels: Sequence[Tensor], looks: Sequence[Look], vocab: int, name: str) -> list[Figure]:
    """Of held-out pictures, what their codes keep of them, and pictures of senseless codes, uint8 [B, C, S, S];
    `looks` are of the same three."""
    held, kept, floor = looks
    a, b, c = map(floats, pixels)
    one, count = exact(1.0, len(a)), len(a)

    def line(label: str, value: Estimate, below: Estimate | None, above: Estimate | None, meaning: str) -> Figure:
        better: Literal["higher", "lower"] = "lower" if meaning == "distance" else "higher"
        return Figure(
            name=label, group="tokenizer", value=value, floor=below, ceiling=above, better=better,
            about=MEANINGS[meaning],
        )  # fmt: skip

    found = [
        line("PSNR of reconstructions, dB", bootstrap(psnrs(a, b)), bootstrap(psnrs(a, c)), None, "psnr"),
        line("SSIM of reconstructions", distances.ssim(a, b), distances.ssim(a, c), one, "ssim"),
    ]
    if name:
        near, far = (bootstrap(cosines(held.features, x.features)) for x in (kept, floor))
        found.append(line(named("distance of reconstructions", name), near, far, exact(0.0, count), "distance"))
    if held.probabilities is not None and kept.probabilities is not None and floor.probabilities is not None:
        agree = lambda p: distances.class_agreement(held.probabilities, p)  # type: ignore[arg-type]
        own, other = agree(kept.probabilities), agree(floor.probabilities)
        found.append(line(named("class agreement", name), own, other, one, "agreement"))
    used, perplexity = metrics.usage(held.codes, vocab)
    limit = exact(float(vocab), count)
    return [
        *found,
        line("codes in use", exact(float(used), count), None, limit, "usage"),
        line("perplexity of codes", exact(perplexity, count), None, limit, "perplexity"),
    ]


def psnrs(a: Tensor, b: Tensor) -> np.ndarray:
    """In dB of each picture in 0 ... 1; 100 for equal ones."""
    error = (a - b).square().flatten(1).mean(1).clamp(min=1e-10)
    return (-10 * error.log10()).double().numpy()


def cosines(a: Tensor, b: Tensor) -> np.ndarray:
    """1 - cosine of each pair of rows."""
    return (1 - F.cosine_similarity(a.double(), b.double())).numpy()


# Drawings.


@dataclass(frozen=True)
class Sets:
    """The drawings in groups, and what stands in their place for the other figures of a line."""

    groups: Sequence[Look]
    senseless: Look
    coded: Look
    held: Look | None

    @property
    def each(self) -> list[Sequence[Look]]:
        """Model, floor, codes, ceiling."""
        return [self.groups, [self.senseless], [self.coded], [self.held] if self.held else []]

    @property
    def size(self) -> int:
        """Pictures in the smallest of them."""
        return min(len(look) for looks in self.each for look in looks)

    def equal(self) -> list[Sequence[Look]]:
        """The same in parts of equally many pictures, for figures that depend on how many there are."""
        return [[part for look in looks for part in parts(look, self.size)] for looks in self.each]


def parts(look: Look, size: int) -> list[Look]:
    """As many parts of `size` pictures as there are."""
    return [look[i : i + size] for i in range(0, len(look) - size + 1, size)]


def drawings(reference: Look, sets: Sets, name: str, seed: int) -> list[Figure]:
    """Of drawings against the reference's photographs. The floor, the codes' own line and the ceiling are the same
    figures of other pictures in the drawings' place."""
    reference = reference[torch.tensor(spread(range(len(reference)), REFERENCE))]
    real, size, equal = reference.features, sets.size, sets.equal()

    def kid(x: Look) -> Estimate:
        return times(distances.kid(real, x.features, size=min(100, size), seed=seed), 1000)

    def frechet(x: Look) -> Estimate:
        return distances.frechet_estimate(real, x.features, components=COMPONENTS, seed=seed)

    found = [
        _line(f"{named('KID', name)} × 1000", "lower", "kid", kid, sets.each, -math.inf),
        _line(distances.frechet_name(name, COMPONENTS), "lower", "fd", frechet, equal, size=size),
    ]
    if (fid := distances.frechet_name(name, None)) == "FID":
        of_all = lambda x: distances.frechet_estimate(real, x.features, components=None, rounds=10, seed=seed)
        found.append(
            _line(fid, "lower", "fid", of_all, [[Look.together(looks)] if looks else [] for looks in sets.each])
        )
    every = [[distances.prdc(real, x.features, nearest=NEAREST) for x in looks] for looks in equal]
    for what in ("precision", "recall", "density", "coverage"):
        most = math.inf if what == "density" else 1.0
        found.append(_line(named(what, name), "higher", what, lambda e, w=what: e[w], every, most=most, size=size))
    if reference.probabilities is not None:
        photographs = reference.probabilities
        rate = lambda x: distances.subject_rate(photographs, x.probabilities)
        classes = len(distances.subject_classes(photographs))
        found.append(
            _line(named("subject rate", name), "higher", "subject", rate, sets.each, most=1.0, classes=classes)
        )
    return found


def _line(
    name: str, better: Literal["higher", "lower"], meaning: str, of: Callable[..., Estimate], sets: Sequence[Sequence],
    least: float = 0.0, most: float = math.inf, **told: int,
) -> Figure:  # fmt: skip
    value, floor, coded, ceiling = (over_seeds([of(x) for x in xs], least, most) if xs else None for xs in sets)
    assert value is not None
    return Figure(
        name=name, group="drawings", value=value, floor=floor, codes=coded, ceiling=ceiling, better=better,
        about=MEANINGS[meaning].format(**told),
    )  # fmt: skip


def times(e: Estimate, scale: float) -> Estimate:
    return Estimate(e.value * scale, e.low * scale, e.high * scale, e.count)
