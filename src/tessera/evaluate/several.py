"""Is it worth drawing several pictures of a caption and keeping the one that the model itself finds best? It is where
words of captions are seen better, and the pictures stay near and diverse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tessera.config import SampleConfig
from tessera.evaluate.drawings import Asked
from tessera.evaluate.tried import Tried, noise
from tessera.generate.judge import OwnJudge, best
from tessera.generate.picture import Picture
from tessera.generate.pipeline import Pipeline

OF = 4
"""Pictures that are drawn of a caption."""
LEAST = 0.9
"""The diversity must not fall below this share."""
APART = 10**9
"""How far the seeds of a caption's pictures lie apart."""
COMPARED = 200
"""Pictures whose distances to each other are diversity, at most."""


@dataclass(frozen=True)
class Several:
    """The best of several pictures of each caption beside the first of them."""

    one: Tried
    best: Tried
    diversity: float
    """Mean distance of the best ones to each other, in that of the first ones."""

    @property
    def better(self) -> bool:
        """Whether words are seen better by more than the noise, and nothing else is lost by more than that."""
        if not (self.one.words and self.best.words) or self.diversity < LEAST:
            return False
        gained = self.best.words.value - self.one.words.value
        lost = self.best.distance.value - self.one.distance.value
        return gained > noise([self.one.words, self.best.words]) and lost < noise(
            [self.one.distance, self.best.distance]
        )

    def row(self) -> dict[str, float | int]:
        """For people."""
        first = {f"one_{name}": value for name, value in self.one.row().items() if name in ("kid", "words")}
        return {**self.best.row(), "best_of": OF, "diversity": round(self.diversity, 3), **first}


Look = Callable[[Sequence[Picture]], Tensor]
"""Pictures -> their features [B, D]."""
Measure = Callable[[Tensor], Tried]
"""Features of drawings of the captions, in their order -> how near and how well said they are."""


def compare(
    pipeline: Pipeline, sampling: SampleConfig, wanted: Sequence[Asked], look: Look, measure: Measure
) -> Several:
    """Draw each caption several times, and measure the first and the best."""
    judge, captions = OwnJudge(pipeline.model, pipeline.prompts), [a.caption for a in wanted]
    tries = [pipeline.draw(captions, [a.seed + APART * i for a in wanted], sampling, truncate=True) for i in range(OF)]
    kept = [best(pictures, judge, 1)[0] for pictures in zip(*tries, strict=True)]
    one, chosen = look(tries[0]), look(kept)
    return Several(measure(one), measure(chosen), spread(chosen) / max(spread(one), 1e-12))


def spread(features: Tensor) -> float:
    """The mean distance of pictures to each other."""
    return float(torch.pdist(features[:COMPARED]).mean())
