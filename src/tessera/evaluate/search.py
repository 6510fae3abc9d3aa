"""How a run should draw: some settings are tried on captions that it never learned, and the best are found by a race.

Drawings are compared with what the run's codes keep of the pictures that it learned, because no drawing can come
nearer. So what the image tokenizer loses does not hide what the settings change.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tessera.config import SampleConfig
from tessera.data.sources import Pair
from tessera.errors import ConfigError, DataError
from tessera.evaluate.distances import kid
from tessera.evaluate.drawings import asked
from tessera.evaluate.features import Features, seen
from tessera.evaluate.ground import Progress
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.looking import bytes_of, floats, spread
from tessera.evaluate.several import OF, Several, compare
from tessera.evaluate.subject import Subject
from tessera.evaluate.text_fit import WordProbes
from tessera.evaluate.tried import Tried, ordered
from tessera.generate.picture import Picture
from tessera.generate.pipeline import Pipeline

TRIED = tuple(
    SampleConfig(guidance=guidance, top_p=top_p)
    for guidance, top_p in itertools.product((1.0, 1.5, 2.0, 3.0), (1.0, 0.9, 0.7))
)
"""What is tried, for every run."""
ROUNDS = ((12, 1), (4, 2), (2, 4))
"""How many settings draw in each round, and how many times as many pictures each of them then has."""
SEVERAL = 2
"""Captions that are drawn several times, in those of the first round."""
FEWEST, MOST = 16, 96
"""Pictures of one setting in the first round: with fewer the race says nothing, more are not needed."""
LOOKED_AT = 600
"""Learned pictures that drawings are compared with, at most."""
FIRST_SEED = 2**40
"""Seeds of these drawings, far from those that `evaluate` measures."""


@dataclass(frozen=True)
class Found:
    """What a race found."""

    tried: list[Tried]
    """The best first; empty where nothing could be tried."""
    several: Several | None = None
    """The best way with several drawings of each caption."""


class Course:
    """What the settings are measured against: learned pictures as their codes keep them, with their captions."""

    def __init__(self, subject: Subject, features: Features, progress: Progress):
        pairs, pixels = subject.readable(spread(subject.learned, LOOKED_AT))
        if len(pairs) < FEWEST:
            raise DataError(f"{len(pairs)} learned pictures can be read, too few to choose drawing settings by.")
        self.features = features
        coded = bytes_of(subject.decoded(subject.codes(floats(pixels))))
        parts = coded.split(32)
        ahead = progress("Looking at learned pictures")
        self.coded = torch.cat([self.look(part) for part in ahead(parts, len(parts))])
        self.probes = _probes(self.coded, pairs)

    def look(self, pixels: Tensor) -> Tensor:
        """Features [B, D] of pictures, uint8."""
        return seen(self.features, floats(pixels)).features

    def measured(self, sampling: SampleConfig, drawn: Tensor, captions: Sequence[str]) -> Tried:
        """Drawings' features [B, D], and what was asked for."""
        found, words = kid(drawn, self.coded), None
        if self.probes is not None:
            try:
                words = self.probes.overall(drawn, captions, rounds=50)
            except DataError:  # no word tells these captions apart
                words = None
        thousand = Estimate(1000 * found.value, 1000 * found.low, 1000 * found.high, found.count)
        return Tried(sampling, len(drawn), thousand, words)


def _probes(coded: Tensor, pairs: Sequence[Pair]) -> WordProbes | None:
    try:
        return WordProbes.fit(coded, ["\n".join(p.captions) for p in pairs])
    except (ConfigError, DataError):  # captions without common words; scikit-learn is not here
        return None


Draw = Callable[[SampleConfig, int, int], tuple[Tensor, list[str]]]
"""Settings, a first drawing and how many -> the drawings' features, and their captions."""


def race(course: Course, draw: Draw, count: int) -> list[Tried]:
    """All of TRIED draw `count` pictures; the better ones draw more, round after round. The best first.

    Each setting draws the same captions with the same seeds.
    """
    drawn: dict[SampleConfig, tuple[Tensor, list[str]]] = {}
    found: dict[SampleConfig, Tried] = {}
    running = list(TRIED)
    for settings, times in ROUNDS:
        running = running[:settings]
        for sampling in running:
            had, captions = drawn.get(sampling, (torch.zeros(0, course.coded.shape[1]), []))
            more, asked_for = draw(sampling, len(captions), times * count - len(captions))
            drawn[sampling] = torch.cat((had, more)), [*captions, *asked_for]
            found[sampling] = course.measured(sampling, *drawn[sampling])
        running = [t.sampling for t in ordered([found[s] for s in running])]
    first = [found[s] for s in running]
    return [*first, *ordered([t for s, t in found.items() if s not in running])]


def search(
    pipeline: Pipeline, subject: Subject, features: Features, seconds: float, seed: int, progress: Progress
) -> Found:
    """A race of about `seconds`, and then the best way with several drawings of each caption; nothing where the time
    does not reach for what says something.

    Raises DataError where there are too few pictures.
    """
    began = time.monotonic()
    held = subject.held or subject.learned
    course = Course(subject, features, progress)
    wanted = asked(held, ROUNDS[-1][1] * MOST, FIRST_SEED + seed % 2**62)  # no seed goes beyond 2^63 - 1

    def look(pictures: Sequence[Picture]) -> Tensor:
        return course.look(torch.stack([_planes(p) for p in pictures]))

    def draw(sampling: SampleConfig, first: int, count: int) -> tuple[Tensor, list[str]]:
        part = wanted[first : first + count]
        captions = [a.caption for a in part]
        pictures = pipeline.draw(captions, [a.seed for a in part], sampling, batch=32, truncate=True)
        return look(pictures), captions

    looked = time.monotonic()
    draw(TRIED[-1], 0, FEWEST)
    each = (time.monotonic() - looked) / FEWEST
    turns = sum(n * (times - had) for (n, times), had in zip(ROUNDS, (0, *(t for _, t in ROUNDS)), strict=False))
    count = min(MOST, int((seconds - (time.monotonic() - began)) / (each * (turns + SEVERAL * OF))))
    if count < FEWEST:
        return Found([])
    found, again = race(course, draw, count), wanted[: SEVERAL * count]
    measure = lambda drawn: course.measured(found[0].sampling, drawn, [a.caption for a in again])
    return Found(found, compare(pipeline, found[0].sampling, again, look, measure))


def _planes(picture: Picture) -> Tensor:
    """uint8 [C, S, S]."""
    pixels = np.array(picture.image)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
