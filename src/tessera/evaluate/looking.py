"""Pictures as measuring sees them: features, classes, few pixels, codes; each looked at once. It knows no figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from tessera.data.sources import Pair
from tessera.evaluate.features import Features, seen
from tessera.evaluate.kept import Arrays, Kept, of_tensor
from tessera.evaluate.subject import Subject

CHUNK = 128
"""Pictures that are looked at together, and what a kill loses at most."""
SMALL = 32
"""Side of the pictures whose pixels are compared."""

Ahead = Callable[[Iterable, int], Iterable]


@dataclass(frozen=True)
class Look:
    """What is known of some pictures, in their order."""

    features: Tensor
    """[B, D]; D is 0 where nothing looks at pictures."""
    probabilities: Tensor | None
    """[B, C] of a classifier's classes; None where what looks has no classes."""
    small: Tensor
    """[B, P] uint8: the pixels of the pictures, made small."""
    codes: Tensor
    """[B, N]."""

    def __len__(self) -> int:
        return len(self.small)

    def __getitem__(self, rows: slice | Tensor) -> Look:
        some = None if self.probabilities is None else self.probabilities[rows]
        return Look(self.features[rows], some, self.small[rows], self.codes[rows])

    @staticmethod
    def together(parts: Sequence[Look]) -> Look:
        found = [p.probabilities for p in parts if p.probabilities is not None]
        return Look(
            torch.cat([p.features for p in parts]),
            torch.cat(found) if found else None,
            torch.cat([p.small for p in parts]),
            torch.cat([p.codes for p in parts]),
        )


class Looker:
    """Looks at pictures, and keeps what it saw."""

    def __init__(self, subject: Subject, features: Features, kept: Kept):
        self.subject, self.features, self.kept = subject, features, kept
        self.tokenizer = subject.image.fingerprint() if subject.image else ""

    def __call__(self, pixels: UInt8[Tensor, "B C S S"], codes: Tensor | None = None) -> Look:
        """`codes` are the pictures' own where they are known already."""
        parts = zip(pixels.split(CHUNK), self._coded(pixels).split(CHUNK) if codes is None else codes.split(CHUNK),
                    strict=True)  # fmt: skip
        return Look.together([self._look(p, c) for p, c in parts])

    def _coded(self, pixels: Tensor) -> Tensor:
        def make() -> Arrays:
            return {"codes": self.subject.codes(floats(pixels)).numpy().astype(np.uint32)}

        found = self.kept.get("codes", [self.tokenizer, of_tensor(pixels)], make)
        return torch.from_numpy(found["codes"].astype(np.int64))

    def _look(self, pixels: Tensor, codes: Tensor) -> Look:
        features = self.features
        if not features.name:
            return Look(torch.zeros(len(pixels), 0), None, shrunk(pixels), codes)

        def make() -> Arrays:
            found = seen(features, floats(pixels))
            more = {} if found.probabilities is None else {"probabilities": found.probabilities.numpy()}
            return {"features": found.features.numpy(), **more}

        found = self.kept.get("seen", [features.name, of_tensor(pixels)], make)
        classes = found.get("probabilities")
        some = None if classes is None else torch.from_numpy(classes)
        return Look(torch.from_numpy(found["features"]), some, shrunk(pixels), codes)

    def photographs(self, pairs: Sequence[Pair], ahead: Ahead) -> tuple[list[Pair], Look | None, Look | None]:
        """Those pairs whose pictures can be read, what is seen of them, and what is seen of what their codes keep;
        None where there is none. The pictures themselves are forgotten, so that there may be many."""
        kept: list[Pair] = []
        looks: list[tuple[Look, Look]] = []
        parts = list(chunks(pairs))
        for part in ahead(parts, len(parts)):
            readable, pixels = self.subject.readable(part)
            if readable:
                kept += readable
                look = self(pixels)
                looks.append((look, self(self.decoded(look.codes), look.codes)))
        if not kept:
            return [], None, None
        seen, coded = (Look.together(side) for side in zip(*looks, strict=True))
        return kept, seen, coded

    def decoded(self, codes: Tensor) -> Tensor:
        """Pictures of codes as a PNG would hold them, uint8 [B, C, S, S]."""
        return torch.cat([bytes_of(self.subject.decoded(part)) for part in codes.split(CHUNK)])


def chunks(pairs: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
    return (pairs[i : i + CHUNK] for i in range(0, len(pairs), CHUNK))


def spread(items: Sequence, most: int) -> list:
    """At most `most` of them, evenly spaced; all where `most` is 0."""
    if not most or len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def floats(pixels: Tensor) -> Tensor:
    """uint8 pictures as 0 ... 1."""
    return pixels.float() / 255


def bytes_of(pixels: Tensor) -> Tensor:
    """Pictures in 0 ... 1 as a PNG would hold them."""
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)


def shrunk(pixels: UInt8[Tensor, "B C S S"]) -> UInt8[Tensor, "B P"]:
    """The pixels of pictures averaged down to 32 on a side, one row each."""
    if pixels.shape[-1] > SMALL:
        small = F.interpolate(pixels.float(), (SMALL, SMALL), mode="area")
        pixels = small.round().to(torch.uint8)
    return pixels.flatten(1)
