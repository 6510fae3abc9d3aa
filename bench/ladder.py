"""Do the figures order pictures as anyone would? Half of a folder's photographs, and the other half made worse in ways
that everybody can see, against the first half.

    python bench/ladder.py ../shared/data/cub_layout [network] [pixels] [rung ...]
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from common import row
from tessera.data.find import find
from tessera.data.pictures import middle_square, read, resized, to_image
from tessera.evaluate.distances import frechet_estimate, frechet_name, kid, named, prdc, subject_rate
from tessera.evaluate.features import load, seen
from tessera.journeys import birds


def tensor(picture: Image.Image) -> Tensor:
    """[3, S, S] in 0 ... 1."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255


def of_image(change: Callable[[Image.Image], Image.Image]) -> Callable[[Tensor, int], Tensor]:
    return lambda picture, number: tensor(change(to_image(picture)))


def jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=30)
    return Image.open(file)


def small(side: int) -> Callable[[Image.Image], Image.Image]:
    bicubic = Image.Resampling.BICUBIC
    return lambda picture: picture.resize((side, side), bicubic).resize(picture.size, bicubic)


def noisy(picture: Tensor, number: int) -> Tensor:
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(number))
    return (picture + 0.15 * noise).clamp(0, 1)


def blocks(side: int) -> Callable[[Tensor, int], Tensor]:
    """Squares of this side, shuffled."""

    def shuffled(picture: Tensor, number: int) -> Tensor:
        c, s = picture.shape[:2]
        n = s // side
        parts = picture.view(c, n, side, n, side).permute(1, 3, 0, 2, 4).flatten(0, 1)  # [n * n, C, side, side]
        parts = parts[torch.randperm(n * n, generator=torch.Generator().manual_seed(number))]
        return parts.view(n, n, c, side, side).permute(2, 0, 3, 1, 4).reshape(c, s, s)

    return shuffled


def bird(picture: Tensor, number: int) -> Tensor:
    noise = np.random.default_rng([0, number])
    return tensor(birds.draw(birds.random_bird(noise, lambda b: True), picture.shape[-1], noise))


RUNGS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "held-out photographs": lambda picture, number: picture,
    "JPEG at quality 30": of_image(jpeg),
    "brought to 32 px": of_image(small(32)),
    "noise of 0.15": noisy,
    "16 x 16 blocks shuffled": blocks(16),
    "brought to 16 px": of_image(small(16)),
    "blurred by 2 px": of_image(lambda p: p.filter(ImageFilter.GaussianBlur(2))),
    "8 x 8 blocks shuffled": blocks(8),
    "built-in birds": bird,
}


def main(folder: str, network: str = "lite2", pixels: str = "64", *rungs: str) -> None:
    pairs = sorted(find(folder).pairs, key=lambda p: p.key)
    read_in = [read(p.image) for p in pairs]
    photographs = [resized(p, middle_square(*p.shape[1:]), int(pixels)).float() / 255 for p in read_in]
    reference, others = photographs[::2], photographs[1::2]
    features = load(network)
    standard = seen(features, reference)
    for rung in rungs or RUNGS:
        found = seen(features, [RUNGS[rung](picture, number) for number, picture in enumerate(others)])
        size = min(len(reference), len(others))
        figures = {
            named("KID", features.name): kid(standard.features, found.features),
            frechet_name(features.name, 64): frechet_estimate(standard.features, found.features),
            **prdc(standard.features[:size], found.features[:size]),
        }
        if standard.probabilities is not None and found.probabilities is not None:
            figures["subject rate"] = subject_rate(standard.probabilities, found.probabilities)
        row("ladder", configuration=rung, pixels=int(pixels), **{name: asdict(e) for name, e in figures.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
