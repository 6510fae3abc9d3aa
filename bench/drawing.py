"""How should a finished run draw? Named ways, each of which draws the same held-out captions with the same seeds,
measured as `learn`'s race measures them; of a run that learned the built-in birds, the asked colours too.

    python bench/drawing.py RUN [WAY ...] [--count 300] [--guidance 2] [--top-p 0.7] [--birds 0] [--judge CLIP_RUN]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import row
from tessera.config import SampleConfig
from tessera.evaluate.drawings import asked
from tessera.evaluate.features import load
from tessera.evaluate.search import FIRST_SEED, Course, _planes
from tessera.evaluate.subject import Subject
from tessera.generate import choose, raster
from tessera.generate.guidance import Guidance
from tessera.generate.judge import CLIPJudge, Judge, OwnJudge, best
from tessera.generate.picture import Picture
from tessera.generate.pipeline import Pipeline
from tessera.journeys import birds
from tessera.journeys.bird_reader import colours_right

Scale = Callable[[float], float]
"""The share of codes that is drawn -> the factor of the guidance scale above 1; its mean over a picture is 1."""


class Scheduled(Guidance):
    """Guidance whose scale follows how much of the picture is drawn, code by code."""

    schedule: Scale
    places: int

    def __init__(self, model: Any, scale: float):
        super().__init__(model, scale)
        self.place = 0

    def combine(self, logits: Tensor) -> Tensor:
        caption, null = logits.chunk(2)
        scale = 1 + (self.scale - 1) * type(self).schedule((self.place + 0.5) / self.places)
        self.place += logits.shape[1]
        return null + scale * (caption - null)


def scheduled(pipeline: Pipeline, schedule: Scale) -> type[Scheduled]:
    places = pipeline.model.layout.codes
    return type("Own", (Scheduled,), {"schedule": staticmethod(schedule), "places": places})


def by_entropy(low: float, rise: float, reach: float) -> Callable[[Tensor], Tensor]:
    """T = low + rise exp(- H / reach), H in nats of 16,384 codes, as ARsample has it; rescaled by the largest H."""

    def filtered(logits: Tensor) -> Tensor:
        entropy = torch.special.entr(logits.softmax(-1)).sum(-1, keepdim=True)
        entropy = entropy * math.log(16384) / math.log(logits.shape[-1])
        return logits / (low + rise * (-entropy / reach).exp())

    return filtered


@dataclass(frozen=True)
class Way:
    """One way of drawing."""

    schedule: Scale | None = None
    temperature: Callable[[Tensor], Tensor] | None = None
    best_of: int = 1
    judge: str = "itself"
    """Who keeps the best: the model itself, or the clip of --judge."""


WAYS = {
    "plain": Way(),
    "rises": Way(lambda x: 2 * x),
    "falls": Way(lambda x: 2 - 2 * x),
    "late, power 2.75": Way(lambda x: 2 * 0.5 * (1 - math.cos(math.pi * x**2.75)) / 0.519),
    "first half": Way(lambda x: 2.0 if x < 0.5 else 0.0),
    "entropy": Way(temperature=by_entropy(0.6, 2.5, 3.0)),
    "entropy, half": Way(temperature=by_entropy(0.8, 1.25, 3.0)),
    "best of 2 by itself": Way(best_of=2),
    "best of 4 by itself": Way(best_of=4),
    "best of 8 by itself": Way(best_of=8),
    "best of 4 by a clip": Way(best_of=4, judge="clip"),
}


@contextmanager
def drawn_so(pipeline: Pipeline, way: Way) -> Iterator[None]:
    """Inside, the pipeline draws in this way."""
    guidance, filters = raster.guidance, choose.filters
    if way.schedule:
        own = scheduled(pipeline, way.schedule)
        raster.guidance = lambda model, scale: own(model, scale)  # type: ignore[assignment]
    if way.temperature:
        choose.filters = lambda config, vocab: [way.temperature, *filters(config, vocab)]  # type: ignore[assignment]
    try:
        yield
    finally:
        raster.guidance, choose.filters = guidance, filters


def draw(
    pipeline: Pipeline,
    way: Way,
    judges: Mapping[str, Judge],
    captions: Sequence[str],
    seeds: Sequence[int],
    s: SampleConfig,
) -> list[Picture]:
    """One picture for each caption; where the best of several is kept, their seeds lie far apart."""
    with drawn_so(pipeline, way):
        tries = [
            pipeline.draw(captions, [seed + 10**6 * i for seed in seeds], s, truncate=True) for i in range(way.best_of)
        ]
    if way.best_of == 1:
        return tries[0]
    return [best(pictures, judges[way.judge], 1)[0] for pictures in zip(*tries, strict=True)]


def measure(
    pipeline: Pipeline,
    course: Course,
    subject: Subject,
    name: str,
    judges: Mapping[str, Judge],
    count: int,
    s: SampleConfig,
    n: int,
) -> None:
    way, wanted = WAYS[name], asked(subject.held, count, FIRST_SEED)
    pictures = draw(pipeline, way, judges, [a.caption for a in wanted], [a.seed for a in wanted], s)
    looks = course.look(torch.stack([_planes(p) for p in pictures]))
    found = course.measured(s, looks, [a.caption for a in wanted])
    figures = {"kid_to_codes": asdict(found.distance), "words": asdict(found.words) if found.words else None}
    spread = torch.pdist(looks[:200]).mean() / torch.pdist(course.coded[:200]).mean()
    figures["diversity"] = round(float(spread), 4)
    if n:
        questions = birds.questions(n, 0)
        read = draw(pipeline, way, judges, [caption for caption, _ in questions], range(n), s)
        figures["colours"] = colours_right([p.image for p in read], [bird for _, bird in questions])
    row(
        "drawing",
        configuration=name,
        guidance=s.guidance,
        top_p=s.top_p,
        drawings=count,
        run=Path(pipeline.name).name,
        **figures,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("ways", nargs="*")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--top-p", type=float, default=0.7)
    parser.add_argument("--birds", type=int, default=0, help="questions, where the run learned the built-in birds")
    parser.add_argument("--judge", help="a clip run, for the ways that keep the best by one")
    a = parser.parse_args()
    torch.set_num_threads(1)
    pipeline, subject = Pipeline.load(a.run, "cpu"), Subject.load(a.run, device="cpu")
    course = Course(subject, load("lite2", "cpu"), lambda title: lambda items, total: items)
    judges: dict[str, Judge] = {"itself": OwnJudge(pipeline.model, pipeline.prompts)}
    if a.judge:
        judges["clip"] = CLIPJudge.load(a.judge, "cpu")
    sampling = SampleConfig(guidance=a.guidance, top_p=a.top_p)
    for name in a.ways or [name for name, way in WAYS.items() if way.judge in judges]:
        measure(pipeline, course, subject, name, judges, a.count, sampling, a.birds)


if __name__ == "__main__":
    main()
