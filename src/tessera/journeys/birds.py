"""The built-in birds: pictures drawn by the program, with captions in the manner of CUB's, so that a fresh machine has
something to learn from. It knows no model; `bird_reader` measures what a model draws.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

BODY: dict[str, Colour] = {
    "red": (206, 52, 46),
    "orange": (240, 138, 36),
    "yellow": (250, 212, 62),
    "green": (72, 150, 74),
    "blue": (58, 104, 196),
    "brown": (124, 82, 52),
    "black": (44, 44, 52),
    "white": (248, 247, 242),
}
WING = BODY
BELLY = {name: BODY[name] for name in ("white", "yellow", "orange", "red", "brown")}
BEAK = {name: BODY[name] for name in ("yellow", "black", "red", "white")}
SKY: dict[str, Colour] = {
    "blue": (176, 216, 242),
    "green": (184, 222, 168),
    "pink": (248, 196, 204),
    "purple": (208, 190, 232),
    "grey": (196, 200, 204),
}
PALETTES = {"body": BODY, "wings": WING, "belly": BELLY, "beak": BEAK, "background": SKY}
SIZES = {"small": 0.82, "large": 1.06}
PERCHES = ("branch", "ground", "wire")
BARK, LEAF, SOIL, WIRE, LEG = (120, 88, 62), (104, 156, 84), (150, 128, 92), (84, 84, 92), (86, 70, 58)


@dataclass(frozen=True)
class Bird:
    """What a picture shows: everything a caption may name, and the pose, which no caption names."""

    body: str
    wings: str
    belly: str
    beak: str
    background: str
    size: str = "large"
    perch: str = "branch"
    facing: int = 1
    tilt: float = 0.0
    dx: float = 0.0
    dy: float = 0.0

    @property
    def combination(self) -> str:
        return " ".join(getattr(self, part) for part in PALETTES)


def held_out(bird: Bird) -> bool:
    """One colour combination in five is never trained on."""
    return hashlib.blake2b(bird.combination.encode(), digest_size=2).digest()[0] < 51


def random_bird(noise: np.random.Generator, wanted: Callable[[Bird], bool]) -> Bird:
    """A bird for which `wanted` holds. A bird's belly and wings differ from its body, so that each can be seen."""
    while True:
        colours = {part: str(noise.choice(list(palette))) for part, palette in PALETTES.items()}
        bird = Bird(
            **colours,
            size=str(noise.choice(list(SIZES))),
            perch=str(noise.choice(PERCHES)),
            facing=int(noise.choice((-1, 1))),
            tilt=float(noise.uniform(-7, 7)),
            dx=float(noise.uniform(-0.04, 0.04)),
            dy=float(noise.uniform(-0.02, 0.02)),
        )
        if bird.body not in (bird.wings, bird.belly) and bird.wings != bird.belly and wanted(bird):
            return bird


# Drawing. A bird is drawn in a unit square around its own middle, facing right, y downwards.

Point = tuple[float, float]


def ellipse(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0, n: int = 48) -> list[Point]:
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    around = [2 * math.pi * i / n for i in range(n)]
    return [
        (cx + rx * math.cos(a) * c - ry * math.sin(a) * s, cy + rx * math.cos(a) * s + ry * math.sin(a) * c)
        for a in around
    ]


def _wing() -> list[Point]:
    """A drop: round at the shoulder, pointed towards the tail."""

    def breadth(t: float) -> float:
        return math.sin(math.pi / 2 * t / 0.7) if t < 0.7 else math.sqrt(max(0.0, 1 - ((t - 0.7) / 0.3) ** 2))

    along = [i / 30 for i in range(31)]
    upper = [(-0.31 + 0.42 * t, 0.135 - 0.06 * t - 0.125 * breadth(t)) for t in along]
    lower = [(-0.31 + 0.42 * t, 0.135 - 0.06 * t + 0.095 * breadth(t)) for t in reversed(along)]
    return upper + lower


SHAPES: list[tuple[str, list[Point]]] = [
    ("tail", [(-0.20, -0.02), (-0.46, 0.13), (-0.43, 0.22), (-0.33, 0.21), (-0.14, 0.12)]),
    ("beak", [(0.235, -0.295), (0.46, -0.18), (0.235, -0.095)]),
    ("body", ellipse(0.0, 0.04, 0.265, 0.205, 14)),
    ("body", ellipse(0.155, -0.195, 0.155, 0.15)),
    ("body", [(0.02, -0.14), (0.29, -0.13), (0.245, 0.08), (0.02, 0.1)]),
    ("belly", ellipse(0.11, 0.112, 0.165, 0.118, -20)),
    ("wings", _wing()),
]
"""Back to front. The tail has the wings' colour."""
PART_OF = {"tail": "wings"}


def placed(points: Iterable[Point], bird: Bird, side: int) -> list[Point]:
    """From the bird's own square to the picture's pixels."""
    scale = 0.92 * SIZES[bird.size]
    c, s = math.cos(math.radians(bird.tilt)), math.sin(math.radians(bird.tilt))
    turned = (((x * c - y * s) * scale * bird.facing, (x * s + y * c) * scale) for x, y in points)
    foot = 0.72 + bird.dy
    return [((0.5 + bird.dx + x) * side, (foot - 0.29 * scale + y) * side) for x, y in turned]


def draw(bird: Bird, pixels: int = 64, noise: np.random.Generator | None = None) -> Image.Image:
    """The picture of a bird, `pixels` on a side, anti-aliased; `noise` moves leaves, clouds and shades a little."""
    noise = noise or np.random.default_rng(0)
    side = pixels * 4
    picture = _scenery(bird, side, noise)
    pen = ImageDraw.Draw(picture)
    shade = int(noise.integers(-8, 9))

    def colour(part: str, lighter: int = 0) -> Colour:
        r, g, b = PALETTES[part][getattr(bird, part)]
        return tuple(min(255, max(0, v + shade + lighter)) for v in (r, g, b))  # type: ignore[return-value]

    scale = 0.92 * SIZES[bird.size]
    for x in (-0.03, 0.07):
        (hip, toe) = placed([(x, 0.2), (x, 0.29)], bird, side)
        pen.line(
            [
                hip,
                (hip[0], (0.72 + bird.dy + 0.008) * side),
                (toe[0] + 0.02 * side * bird.facing, (0.73 + bird.dy) * side),
            ],
            fill=LEG,
            width=max(1, round(0.017 * scale * side)),
        )
    for name, shape in SHAPES:
        pen.polygon(placed(shape, bird, side), fill=colour(PART_OF.get(name, name)))
    wing = placed([(-0.25, 0.13), (-0.1, 0.15), (0.02, 0.12)], bird, side)
    pen.line(wing, fill=colour("wings", -38 if sum(BODY[bird.wings]) > 240 else 50), width=max(1, round(0.012 * side)))
    for radius, fill in ((0.043, (252, 252, 250)), (0.03, (24, 24, 30))):
        pen.polygon(placed(ellipse(0.185, -0.215, radius, radius), bird, side), fill=fill)
    pen.polygon(placed(ellipse(0.195, -0.226, 0.01, 0.01), bird, side), fill=(255, 255, 255))
    return picture.resize((pixels, pixels), Image.Resampling.BOX)


def _scenery(bird: Bird, side: int, noise: np.random.Generator) -> Image.Image:
    """Sky, perhaps a cloud, and what the bird stands on."""
    sky = np.array(SKY[bird.background], dtype=np.float64)
    fade = np.linspace(-9, 9, side)[:, None, None] + sky
    picture = Image.fromarray(np.broadcast_to(fade, (side, side, 3)).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    pale = tuple(int(v + (255 - v) * 0.45) for v in sky)
    if noise.random() < 0.6:
        x, y = (0.14 if bird.facing > 0 else 0.86) + noise.uniform(-0.05, 0.05), noise.uniform(0.08, 0.2)
        for ox, oy, r in ((-0.06, 0.01, 0.045), (0.0, -0.015, 0.06), (0.065, 0.01, 0.045)):
            pen.polygon([(px * side, py * side) for px, py in ellipse(x + ox, y + oy, r * 1.2, r)], fill=pale)
    foot = (0.73 + bird.dy) * side
    if bird.perch == "ground":
        pen.rectangle([0, foot, side, side], fill=SOIL)
        for _ in range(7):
            x, h = noise.uniform(0, side), noise.uniform(0.03, 0.07) * side
            pen.polygon([(x - 0.02 * side, foot + 1), (x, foot - h), (x + 0.02 * side, foot + 1)], fill=LEAF)
    elif bird.perch == "branch":
        slope = noise.uniform(-0.02, 0.02) * side
        pen.line(
            [(0, foot + 0.025 * side + slope), (side, foot + 0.025 * side - slope)],
            fill=BARK,
            width=round(0.055 * side),
        )
        for _ in range(4):
            x = noise.uniform(0.04, 0.96)
            leaf = ellipse(x, foot / side + 0.085, 0.05, 0.024, float(noise.uniform(30, 150)), 24)
            pen.polygon([(px * side, py * side) for px, py in leaf], fill=LEAF)
    else:
        pen.line([(0, foot + 0.01 * side), (side, foot + 0.01 * side)], fill=WIRE, width=max(1, round(0.018 * side)))
    return picture


# Captions.

PERCHED = {
    "branch": ("sitting on a branch", "perched on a twig with green leaves", "on a branch"),
    "ground": ("standing on the ground", "on the ground among the grass", "hopping over the soil"),
    "wire": ("sitting on a wire", "perched on a thin wire", "on a wire"),
}
TEMPLATES = (
    "a {size} {body} bird with {wings} wings, a {belly} belly and a {beak} beak {perched}, {background} background",
    "this bird has a {body} body, {wings} wings, a {belly} belly and a {beak} beak, {background} background",
    "the {size} bird has a {beak} beak, a {belly} belly, {wings} wings and a {body} body, {background} background",
    "{background} background, a {body} bird {perched} with {wings} wings, a {beak} beak and a {belly} belly",
    "{perched}, a {size} {body} bird with a {belly} belly, {wings} wings and a {beak} beak, {background} background",
    "this {size} {body} bird {perched} has a {belly} belly, {wings} wings and a {beak} beak, {background} background",
)
SHORT = (
    "a {body} bird with {wings} wings",
    "this bird is {body} with a {belly} belly and a {beak} beak",
    "a {size} {body} bird {perched}",
    "a bird with {wings} wings and a {belly} belly on a {background} background",
)


def caption(bird: Bird, noise: np.random.Generator, templates: tuple[str, ...] = TEMPLATES) -> str:
    """One natural sentence; those of TEMPLATES name all five colours."""
    words = {part: getattr(bird, part) for part in PALETTES}
    sentence = str(noise.choice(templates)).format(**words, size=bird.size, perched=noise.choice(PERCHED[bird.perch]))
    return sentence.replace("a orange", "an orange")


def draw_folder(folder: Path, count: int, pixels: int = 64, seed: int = 0) -> None:
    """Write `count` captioned birds of the trained combinations: 00000.png with 00000.txt beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = np.random.default_rng([seed, i])
        bird = random_bird(noise, lambda b: not held_out(b))
        lines = [caption(bird, noise) for _ in range(4)] + [caption(bird, noise, SHORT)]
        draw(bird, pixels, noise).save(folder / f"{i:05d}.png")
        (folder / f"{i:05d}.txt").write_text("\n".join(lines) + "\n", "utf-8")


def questions(count: int, seed: int = 0) -> list[tuple[str, Bird]]:
    """Captions that name five colours in combinations that `draw_folder` never draws, with the birds they mean."""
    asked: dict[str, tuple[str, Bird]] = {}
    for i in itertools.count():
        noise = np.random.default_rng([seed, 77, i])
        bird = random_bird(noise, held_out)
        asked.setdefault(bird.combination, (caption(bird, noise), bird))
        if len(asked) == count:
            return list(asked.values())
    raise AssertionError
