"""Looks and nats in, figures out: one function for each group of the table. It reads no files and draws nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from tessera.evaluate import distances, metrics
from tessera.evaluate.figures import Figure
from tessera.evaluate.intervals import Estimate, bootstrap, over_seeds, share
from tessera.evaluate.looking import Look, floats, spread

REFERENCE = 5000
"""Learned pictures that sets are compared with, at most."""
FEWEST = 3
"""Pictures in each set that distances need."""
NEAREST = 5
"""Neighbours that bound a picture's surroundings, in precision, recall, density and coverage."""
COMPONENTS = 64


def exact(value: float, count: int) -> Estimate:
    """A figure that is known and not estimated."""
    return Estimate(value, value, value, count)


# Likelihood.


def likelihood(held: Tensor, learned: Tensor | None, floor: Tensor) -> list[Figure]:
    """Of nats [B, N] of held-out and of learned pictures, and of the unigram predictor's on the held-out ones."""

    def line(name: str, scale: float, about: str) -> Figure:
        of = [None if x is None else bootstrap(x.sum(1).double().numpy() * scale) for x in (held, floor, learned)]
        assert of[0] is not None
        return Figure(
            name=name, group="likelihood", value=of[0], floor=of[1], ceiling=of[2], better="lower", about=about
        )

    per_code = "What the model pays for a code of a held-out picture, given its caption; the ceiling is what it pays on the pictures it learned."  # fmt: skip
    return [
        line("nats per code", 1 / held.shape[1], per_code),
        line("bits per picture", 1 / math.log(2), "The same for a whole picture, as a file would be coded."),
    ]


def caption_worth(true: Tensor, null: Tensor, other: Tensor | None) -> list[Figure]:
    """Of nats [B, N] of the same held-out pictures with their caption, with none, and with another picture's."""
    saved = "Nats that the true caption saves on a held-out picture, against {}; 0 means that captions are not read."

    def line(name: str, without: Tensor, about: str) -> Figure:
        gained = bootstrap((without - true).sum(1).double().numpy())
        return Figure(name=name, group="caption", value=gained, floor=exact(0.0, len(true)), about=saved.format(about))

    found = [line("caption against none, nats per picture", null, "none")]
    if other is not None:
        found.append(line("caption against another's, nats per picture", other, "the caption of another picture"))
    return found


def caption_ranks(ranks: Sequence[float], among: int) -> list[Figure]:
    """Of the true caption's ranks among so many, by the model's own likelihood of the picture."""
    count, best = len(ranks), exact(1.0, len(ranks))
    return [
        Figure(name=f"true caption's mean rank among {among}", group="caption", value=bootstrap(ranks),
               floor=exact((among + 1) / 2, count), ceiling=best, better="lower",
               about="By the model's own likelihood of the picture; no judge is needed."),
        Figure(name=f"true caption first among {among}", group="caption", value=share([r < 1.5 for r in ranks]),
               floor=exact(1 / among, count), ceiling=best, about="Share of held-out pictures."),
    ]  # fmt: skip


# The image tokenizer.


def tokenizer(pixels: Sequence[Tensor], looks: Sequence[Look], vocab: int, name: str) -> list[Figure]:
    """Of held-out pictures, what their codes keep of them, and pictures of senseless codes, uint8 [B, C, S, S];
    `looks` are of the same three."""
    held, kept, floor = looks
    a, b, c = map(floats, pixels)
    found = [
        Figure(name="PSNR of reconstructions, dB", group="tokenizer", value=bootstrap(psnrs(a, b)),
               floor=bootstrap(psnrs(a, c)), about="Held-out pictures, encoded and decoded."),
        Figure(name="SSIM of reconstructions", group="tokenizer", value=distances.ssim(a, b),
               floor=distances.ssim(a, c), ceiling=exact(1.0, len(a))),
    ]  # fmt: skip
    if held.features.shape[1]:
        found.append(
            Figure(name=distances.named("distance of reconstructions", name), group="tokenizer", better="lower",
                   value=bootstrap(cosines(held.features, kept.features)),
                   floor=bootstrap(cosines(held.features, floor.features)), ceiling=exact(0.0, len(a)),
                   about="1 - cosine of the features of a picture and of its reconstruction.")
        )  # fmt: skip
    if held.probabilities is not None and kept.probabilities is not None and floor.probabilities is not None:
        agree = distances.class_agreement
        found.append(
            Figure(name=distances.named("class agreement", name), group="tokenizer", ceiling=exact(1.0, len(a)),
                   value=agree(held.probabilities, kept.probabilities),
                   floor=agree(held.probabilities, floor.probabilities),
                   about="Share of reconstructions whose five likeliest classes hold the picture's own likeliest.")
        )  # fmt: skip
    used, perplexity = metrics.usage(held.codes, vocab)
    limit = exact(float(vocab), len(held))
    return [
        *found,
        Figure(name="codes in use", group="tokenizer", value=exact(float(used), len(held)), ceiling=limit),
        Figure(name="perplexity of codes", group="tokenizer", value=exact(perplexity, len(held)), ceiling=limit),
    ]


def psnrs(a: Tensor, b: Tensor) -> np.ndarray:
    """In dB of each picture in 0 ... 1; 100 for equal ones."""
    error = (a - b).square().flatten(1).mean(1).clamp(min=1e-10)
    return (-10 * error.log10()).double().numpy()


def cosines(a: Tensor, b: Tensor) -> np.ndarray:
    """1 - cosine of each pair of rows."""
    return (1 - torch.nn.functional.cosine_similarity(a.double(), b.double())).numpy()


# Drawings.


def parts(look: Look, size: int) -> list[Look]:
    """As many parts of `size` pictures as there are."""
    return [look[i : i + size] for i in range(0, len(look) - size + 1, size)]


def drawings(
    reference: Look, groups: Sequence[Look], senseless: Look, kept: Look | None, held: Look | None, name: str, seed: int
) -> list[Figure]:
    """Of drawings in groups, each against the reference's photographs; the floor, the codes' own line and the ceiling
    are the same figures of other pictures in the drawings' place."""
    reference = reference[torch.tensor(spread(range(len(reference)), REFERENCE))]
    sets = [groups, [senseless], [kept] if kept else None, [held] if held else None]
    size = min(len(look) for looks in sets if looks for look in looks)
    equal = [looks and [p for look in looks for p in parts(look, size)] for looks in sets]

    def line(
        label: str, better: str, about: str, of: Callable[[Look], Estimate], all_sets: Sequence, least: float = 0.0,
        most: float = math.inf,
    ) -> Figure:  # fmt: skip
        value, floor, codes, ceiling = (
            looks and over_seeds([of(look) for look in looks], least, most) for looks in all_sets
        )
        assert value is not None
        return Figure(name=label, group="drawings", value=value, floor=floor or None, codes=codes or None,
                      ceiling=ceiling or None, better=better, about=about)  # type: ignore[arg-type]  # fmt: skip

    real = reference.features
    found = [
        line(f"{distances.named('KID', name)} × 1000", "lower", "Distance of the drawings from the photographs; unbiased, so that sets of different sizes may be compared.",  # fmt: skip
             lambda x: times(distances.kid(real, x.features, size=min(100, size), seed=seed), 1000), sets),
        line(distances.frechet_name(name, COMPONENTS), "lower", f"Fréchet distance on {COMPONENTS} principal components of the photographs, of {size} pictures each.",  # fmt: skip
             lambda x: distances.frechet_estimate(real, x.features, components=COMPONENTS, seed=seed), equal),
    ]  # fmt: skip
    memo: dict[int, dict[str, Estimate]] = {}

    def of(what: str) -> Callable[[Look], Estimate]:
        def measure(x: Look) -> Estimate:
            if id(x) not in memo:
                memo[id(x)] = distances.prdc(real, x.features, nearest=NEAREST)
            return memo[id(x)][what]

        return measure

    for what, about in PRDC.items():
        found.append(line(distances.named(what, name), "higher", f"{about} {size} pictures each.", of(what), equal))
    if reference.probabilities is not None:
        classes = len(distances.subject_classes(reference.probabilities))
        about = f"Share of pictures with half of the probability on the {classes} classes that hold 90 % of the photographs' own."  # fmt: skip
        own = lambda x: distances.subject_rate(reference.probabilities, x.probabilities)  # type: ignore[arg-type]
        found.append(line(distances.named("subject rate", name), "higher", about, own, sets))
    return found


PRDC = {
    "precision": "Share of drawings that lie among photographs.",
    "recall": "Share of photographs that lie among drawings.",
    "density": "How many photographs' surroundings a drawing lies in, 1 for photographs.",
    "coverage": "Share of photographs that have a drawing in their surroundings.",
}


def times(e: Estimate, scale: float) -> Estimate:
    return Estimate(e.value * scale, e.low * scale, e.high * scale, e.count)
