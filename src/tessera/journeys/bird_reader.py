"""Reads the colours of a built-in bird out of a picture, whoever drew it, so that "did it draw what was asked" is a
number. It knows no model.

The pose whose parts are each of one colour explains the picture; then each part's colour is named.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from tessera.journeys.birds import PALETTES, PART_OF, SHAPES, SIZES, Bird, Colour, ellipse, placed

PART_NAMES = [part for part in PALETTES if part != "background"]


@lru_cache(maxsize=2)
def _poses(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks [poses, parts, pixels * pixels] of what each part covers, and how many pixels each has."""
    masks = []
    grid = itertools.product(
        SIZES, (-1, 1), (-8.0, -4.0, 0.0, 4.0, 8.0), (-0.05, -0.025, 0.0, 0.025, 0.05), (-0.02, 0.0, 0.02)
    )
    for size, facing, tilt, dx, dy in grid:
        bird = Bird("red", "red", "red", "red", "blue", size, "wire", facing, tilt, dx, dy)
        index = Image.new("L", (pixels * 4, pixels * 4), len(PART_NAMES))
        pen = ImageDraw.Draw(index)
        pen.rectangle([0, 0.69 * pixels * 4, pixels * 4, pixels * 4], fill=255)  # the perch is nobody's
        for name, shape in SHAPES:
            pen.polygon(placed(shape, bird, pixels * 4), fill=PART_NAMES.index(PART_OF.get(name, name)))
        pen.polygon(placed(ellipse(0.185, -0.215, 0.055, 0.055), bird, pixels * 4), fill=255)
        fine = np.asarray(index).reshape(pixels, 4, pixels, 4)
        shares = [(fine == part).mean((1, 3)).ravel() for part in range(len(PART_NAMES) + 1)]
        masks.append([share == share.max() for share in shares])  # the pixels it fills, or most nearly fills
    stacked = np.array(masks, dtype=np.float32)
    return stacked, stacked.sum(-1).clip(1)


def measure(picture: Image.Image) -> dict[str, str]:
    """The colour of body, wings, belly, beak and background in a picture of one bird, whoever drew it."""
    rgb = np.asarray(picture.convert("RGB"), dtype=np.float32)
    masks, sizes = _poses(rgb.shape[0])
    flat = rgb.reshape(-1, 3)
    means = masks @ flat / sizes[..., None]  # [poses, parts, 3]
    squares = masks @ (flat**2).sum(-1, keepdims=True) / sizes[..., None]
    spread = (squares[..., 0] - (means**2).sum(-1)) * sizes  # what one colour per part leaves unexplained
    best = masks[int((spread.sum(-1) / sizes.sum(-1)).argmin())]
    return {
        part: _name(np.median(flat[best[i] > 0], axis=0), PALETTES[part])
        for i, part in enumerate([*PART_NAMES, "background"])
    }


def _name(colour: np.ndarray, palette: dict[str, Colour]) -> str:
    return min(palette, key=lambda name: float(((colour - np.array(palette[name])) ** 2).sum()))


def hits(pictures: Sequence[Image.Image], asked: Sequence[Bird]) -> dict[str, list[bool]]:
    """For each part of the built-in birds, in which pictures it has the asked colour."""
    found = [measure(picture) for picture in pictures]
    return {
        part: [f[part] == getattr(bird, part) for f, bird in zip(found, asked, strict=True)] for part in PALETTES
    }  # fmt: skip


def colours_right(pictures: Sequence[Image.Image], asked: Sequence[Bird]) -> dict[str, float]:
    """For each part, the share of pictures in which it has the asked colour; "all" over parts."""
    shares = {part: sum(right) / len(right) for part, right in hits(pictures, asked).items()}
    return {**shares, "all": sum(shares.values()) / len(shares)}
