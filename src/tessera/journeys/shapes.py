"""Flat shapes of our own making: every picture is one of 4,608 combinations of shape, size, filling, colour and turn,
and its captions name all five. It knows no model; `shape_reader` measures what a model draws.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from tessera.errors import ConfigError

Point = tuple[float, float]
FINE = 8
"""A picture is drawn this many times as large, then averaged."""

SIZES = {"tiny": 0.42, "small": 0.58, "large": 0.76, "huge": 0.94}
"""Side of the square that a shape fills, as a share of the picture's."""
OUTLINE = 0.085
"""Breadth of an outline, as a share of the same square's side."""
FILLINGS = ("solid", "outlined", "striped", "dotted")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (228, 16, 32),
    "orange": (246, 130, 0),
    "yellow": (255, 228, 0),
    "green": (0, 150, 40),
    "cyan": (0, 206, 236),
    "blue": (16, 64, 228),
    "purple": (164, 24, 190),
    "black": (16, 16, 16),
}
TURNS = ("upright", "turned right", "upside down", "turned left")
"""Clockwise, a quarter each. The whole picture is turned, its stripes and dots too."""
PAPER = (255, 255, 255)


# Shapes stand upright in a square of side 1 around their own middle, y downwards. None looks the same after a quarter
# or a half turn, so that every turn can be seen.


def arc(cx: float, cy: float, rx: float, ry: float, start: float, end: float, n: int = 40) -> list[Point]:
    """Points on an ellipse; degrees, 0 to the right, 90 downwards."""
    angles = (math.radians(start + (end - start) * i / n) for i in range(n + 1))
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


SHAPES: dict[str, list[Point]] = {
    "triangle": [(0.0, -0.5), (0.5, 0.46), (-0.5, 0.46)],
    "arrow": [(0.0, -0.5), (0.46, 0.02), (0.17, 0.02), (0.17, 0.5), (-0.17, 0.5), (-0.17, 0.02), (-0.46, 0.02)],
    "heart": [*arc(-0.25, -0.2, 0.25, 0.25, 160, 360), *arc(0.25, -0.2, 0.25, 0.25, 180, 380), (0.0, 0.48)],
    "drop": [(0.0, -0.5), *arc(0.0, 0.14, 0.36, 0.36, -25, 205)],
    "moon": [*arc(0.0, -0.12, 0.5, 0.56, 0, 180), *arc(0.0, -0.12, 0.5, 0.2, 180, 0)],
    "dome": [*arc(0.0, 0.25, 0.5, 0.55, 180, 360)],
    "arch": [
        (-0.5, 0.5), *arc(0.0, 0.0, 0.5, 0.5, 180, 360), (0.5, 0.5),
        (0.18, 0.5), *arc(0.0, 0.0, 0.18, 0.18, 360, 180), (-0.18, 0.5),
    ],
    "corner": [(-0.48, -0.5), (-0.12, -0.5), (-0.12, 0.14), (0.48, 0.14), (0.48, 0.5), (-0.48, 0.5)],
    "flag": [(-0.4, -0.5), (0.5, -0.2), (-0.2, 0.1), (-0.2, 0.5), (-0.4, 0.5)],
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What a picture shows and its captions name."""

    shape: str
    size: str
    filling: str
    colour: str
    turn: str


PARTS = tuple(field.name for field in fields(Shape))


def combinations() -> list[Shape]:
    """All of them, in a fixed order; the turn changes first."""
    return [Shape(*parts) for parts in itertools.product(SHAPES, SIZES, FILLINGS, COLOURS, TURNS)]


LEARNED_SHARE = 0.3
LEARNED = round(LEARNED_SHARE * len(SHAPES) * len(SIZES) * len(FILLINGS) * len(COLOURS) * len(TURNS))
"""Combinations that may be learned from; all others are asked for."""


def divided(seed: int) -> tuple[list[Shape], list[Shape]]:
    """The combinations to learn from, and those that are never learned, each in an order of its own."""
    every = combinations()
    order = np.random.default_rng([seed, 41]).permutation(len(every))
    shuffled = [every[i] for i in order]
    return shuffled[:LEARNED], shuffled[LEARNED:]


# Drawing.


@lru_cache(maxsize=2)
def coverages(pixels: int) -> dict[tuple[str, str, str], np.ndarray]:
    """By shape, size and filling: how much of each pixel is coloured, [S, S] in 0 ... 1, standing upright."""
    made = itertools.product(SHAPES, SIZES, FILLINGS)
    return {key: _coverage(*key, pixels) for key in made}


def _coverage(shape: str, size: str, filling: str, pixels: int) -> np.ndarray:
    side = pixels * FINE
    points = [((0.5 + x * SIZES[size]) * side, (0.5 + y * SIZES[size]) * side) for x, y in SHAPES[shape]]
    body, paint = Image.new("L", (side, side)), Image.new("L", (side, side))
    ImageDraw.Draw(body).polygon(points, fill=255)
    _paint(ImageDraw.Draw(paint), filling, points, OUTLINE * SIZES[size] * side, side / 32)
    fine = np.asarray(ImageChops.multiply(body, paint), dtype=np.float32) / 255
    return fine.reshape(pixels, FINE, pixels, FINE).mean((1, 3))


def _paint(pen: ImageDraw.ImageDraw, filling: str, points: list[Point], line: float, unit: float) -> None:
    """Where the filling has colour, inside the shape and beyond it; stripes and dots lie 4 units apart."""
    if filling == "solid":
        pen.rectangle([0, 0, 32 * unit, 32 * unit], fill=255)
    elif filling == "outlined":
        pen.line([*points, *points[:2]], fill=255, width=round(2 * line), joint="curve")  # half of it lies outside
    elif filling == "striped":
        for y in range(-1, 33, 4):
            pen.rectangle([0, y * unit, 32 * unit, (y + 2) * unit - 1], fill=255)
    else:
        for x, y in itertools.product(range(0, 33, 4), repeat=2):
            pen.ellipse([(x - 1.3) * unit, (y - 1.3) * unit, (x + 1.3) * unit, (y + 1.3) * unit], fill=255)


def pixels_of(shape: Shape, pixels: int = 32) -> np.ndarray:
    """The picture of a combination, uint8 [S, S, 3]; there is only one."""
    cover = np.rot90(coverages(pixels)[shape.shape, shape.size, shape.filling], -TURNS.index(shape.turn))[..., None]
    paper, ink = np.array(PAPER), np.array(COLOURS[shape.colour])
    return (paper + (ink - paper) * cover).round().astype(np.uint8)


def draw(shape: Shape, pixels: int = 32) -> Image.Image:
    return Image.fromarray(pixels_of(shape, pixels))


# Captions.

TEMPLATES = (
    "a {size} {filling} {colour} {shape}, {turn}",
    "{turn}, a {colour} {shape}, {size} and {filling}",
    "this {shape} is {size}, {filling}, {colour} and {turn}",
    "a {colour} {filling} {shape} that is {size} and {turn}",
)


def caption(shape: Shape, template: str) -> str:
    words = {part: getattr(shape, part) for part in PARTS}
    return template.format(**words).replace("a o", "an o")


def draw_folder(folder: Path, count: int = LEARNED, pixels: int = 32, seed: int = 0) -> None:
    """Write `count` captioned combinations of those to learn from: 00000.png with 00000.txt beside it.

    Raises ConfigError for more than there are.
    """
    learned, _ = divided(seed)
    if count > len(learned):
        raise ConfigError(
            f"{count} pictures were asked for; {len(learned)} combinations of shapes are there to learn from, and each "
            "has one picture. Ask for fewer."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for i, shape in enumerate(learned[:count]):
        draw(shape, pixels).save(folder / f"{i:05d}.png")
        (folder / f"{i:05d}.txt").write_text("\n".join(caption(shape, t) for t in TEMPLATES) + "\n", "utf-8")


def questions(count: int, seed: int = 0) -> list[tuple[str, Shape]]:
    """Captions of combinations that `draw_folder` never draws with this seed, with the shapes they mean.

    Raises ConfigError for more than there are.
    """
    _, asked = divided(seed)
    if count > len(asked):
        raise ConfigError(f"{count} questions were asked for; {len(asked)} combinations are not learned. Ask fewer.")
    return [(caption(shape, TEMPLATES[i % len(TEMPLATES)]), shape) for i, shape in enumerate(asked[:count])]
