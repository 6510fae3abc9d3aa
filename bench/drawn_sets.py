"""Two small sets of pictures of our own making, unlike photographs: sprites of few pixels, and thin lines on white."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tessera.journeys.shapes import COLOURS, PAPER

HALF, ROWS = 5, 10
"""Cells of a sprite: it is mirrored."""
FINE = 4
"""Lines are drawn this many times as large, then averaged."""


def sprite(chance: random.Random, pixels: int) -> tuple[Image.Image, str]:
    """A mirrored creature of few large cells in two colours, with eyes or without."""
    body, trim = chance.sample(sorted(COLOURS), 2)
    ground = chance.choice([PAPER, (24, 24, 40)])
    cells = np.full((ROWS, 2 * HALF, 3), ground, np.uint8)
    for y in range(1, ROWS - 1):
        reach = chance.randint(1, HALF - 1)
        cells[y, HALF - reach : HALF + reach] = COLOURS[body]
        if chance.random() < 0.3:
            cells[y, [HALF - reach, HALF + reach - 1]] = COLOURS[trim]
    eyes = chance.random() < 0.7
    if eyes:
        cells[3, [HALF - 2, HALF + 1]] = (255, 255, 255)
    where = "on white" if ground == PAPER else "at night"
    picture = Image.fromarray(cells).resize((pixels, pixels), Image.Resampling.NEAREST)
    return picture, f"a {body} sprite with {trim} trim {'and eyes ' if eyes else ''}{where}"


def lines(chance: random.Random, pixels: int) -> tuple[Image.Image, str]:
    """One to three thin black outlines on white paper: most of the picture is empty."""
    side, width = pixels * FINE, max(2, pixels * FINE // 48)
    picture = Image.new("RGB", (side, side), PAPER)
    pen, words = ImageDraw.Draw(picture), []
    for _ in range(chance.randint(1, 3)):
        reach = chance.uniform(0.1, 0.3) * side
        x, y = (chance.uniform(reach, side - reach) for _ in range(2))
        corners = chance.choice([0, 3, 4, 6])
        if corners:
            pen.regular_polygon((x, y, reach), corners, rotation=chance.randint(0, 89), outline=0, width=width)
        else:
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline=0, width=width)
        words.append({0: "a circle", 3: "a triangle", 4: "a square", 6: "a hexagon"}[corners])
    return picture.resize((pixels, pixels), Image.Resampling.BOX), " and ".join(words)


SETS: dict[str, Callable[[random.Random, int], tuple[Image.Image, str]]] = {"sprites": sprite, "lines": lines}


def fill(name: str, folder: Path, count: int, pixels: int = 32, seed: int = 0) -> None:
    """Draw `count` captioned pictures of a set into a folder that is not there."""
    folder.mkdir(parents=True)
    chance = random.Random(seed)
    for number in range(count):
        picture, caption = SETS[name](chance, pixels)
        picture.save(folder / f"{number:05d}.png")
        (folder / f"{number:05d}.txt").write_text(caption)
