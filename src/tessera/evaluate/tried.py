"""One way of drawing, measured; and which of several ways is the best. It knows no models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tessera.config import SampleConfig
from tessera.evaluate.intervals import Estimate


@dataclass(frozen=True)
class Tried:
    """One way of drawing, measured."""

    sampling: SampleConfig
    count: int
    """Drawings."""
    distance: Estimate
    """KID x 1000 to what the codes keep of learned pictures."""
    words: Estimate | None
    """How well their captions' words are seen in the drawings (AUC); None where captions have no common words."""

    def row(self) -> dict[str, float | int]:
        """For people."""
        words = {"words": round(self.words.value, 4)} if self.words else {}
        said = {"guidance": self.sampling.guidance, "top_p": self.sampling.top_p, "drawings": self.count}
        return {**said, "kid": round(self.distance.value, 2), **words}


def noise(estimates: Sequence[Estimate]) -> float:
    """One standard error of such figures."""
    return max(1e-12, float(np.mean([e.high - e.low for e in estimates])) / 4)


def ordered(tried: Sequence[Tried]) -> list[Tried]:
    """The best first: by how far each stays behind the best distance and the best words, both in units of their own
    noise, so that a figure which cannot tell them apart does not decide."""
    distances, words = [t.distance for t in tried], [t.words for t in tried if t.words]
    nearest, best = min(e.value for e in distances), max((e.value for e in words), default=0.0)

    def behind(t: Tried) -> float:
        lost = (best - t.words.value) / noise(words) if t.words else 0.0
        return lost + (t.distance.value - nearest) / noise(distances)

    return sorted(tried, key=behind)
