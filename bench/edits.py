"""Does an edit do what was asked, and nothing else? Built-in birds that were never learned are drawn by the program. Of
each the wings and the tail are masked and asked for in another colour, or its left half is cut off and drawn again, or
three tenths of its codes are. A reader of colours looks at the whole bird.

    python bench/edits.py RUN [--count 200] [--guidance 2] [--top-p 0.9] [--sheet sheet.png]
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from common import row
from tessera.config import EditingConfig
from tessera.evaluate.intervals import share
from tessera.generate.editing import drafted
from tessera.generate.picture import Picture
from tessera.generate.pipeline import Pipeline
from tessera.generate.sheet import contact_sheet
from tessera.journeys import bird_reader, birds
from tessera.journeys.birds import PALETTES, PART_OF, SHAPES, Bird, placed

WAYS = {
    "code by code": {},
    "16 steps, halton": {"steps": 16},
    "16 steps, confidence": {"steps": 16, "order": "confidence"},
    "8 steps, halton": {"steps": 8},
}
ROOM = 2
"""Pixels around the wings that are drawn anew with them."""


def wings_of(bird: Bird, pixels: int) -> Image.Image:
    """A mask, white where the wings are."""
    large = Image.new("L", (pixels * 4, pixels * 4))
    for name, shape in SHAPES:
        if PART_OF.get(name, name) == "wings":
            ImageDraw.Draw(large).polygon(placed(shape, bird, pixels * 4), fill=255)
    own = large.resize((pixels, pixels), Image.Resampling.BOX).point(lambda v: 255 * (v > 64))
    return own.filter(ImageFilter.MaxFilter(2 * ROOM + 1))


def repainted(bird: Bird, noise: np.random.Generator) -> Bird:
    """The same bird with wings of another colour."""
    others = [colour for colour in PALETTES["wings"] if colour not in (bird.wings, bird.body)]
    return dataclasses.replace(bird, wings=str(noise.choice(others)))


class Task(NamedTuple):
    """A picture that is edited, what it shall show, and how that is asked for."""

    picture: Image.Image
    wanted: Bird
    mask: Image.Image | None
    options: dict[str, object]


def wings(bird: Bird, picture: Image.Image, noise: np.random.Generator) -> Task:
    return Task(picture, repainted(bird, noise), wings_of(bird, picture.width), {})


def left_half(bird: Bird, picture: Image.Image, noise: np.random.Generator) -> Task:
    right = picture.crop((picture.width // 2, 0, picture.width, picture.height))
    return Task(right, bird, None, {"outpaint": "1,0,0,0"})


def varied(first: str) -> Callable[[Bird, Image.Image, np.random.Generator], Task]:
    return lambda bird, picture, noise: Task(picture, bird, None, {"vary": 0.3, "vary_first": first})


TASKS = {
    "wings in another colour": wings, "left half drawn again": left_half,
    "0.3 varied, the least likely first": varied("uncertain"), "0.3 varied, by chance": varied("random"),
}  # fmt: skip


class Edit(NamedTuple):
    before: Image.Image
    after: Picture
    bird: Bird
    """That was edited."""
    wanted: Bird


def edited(pipeline: Pipeline, name: str, count: int, how: dict[str, object]) -> tuple[list[Edit], float]:
    """Edits, and the share of codes outside of masks that stayed."""
    found, stayed, pixels = [], [], pipeline.image.pixels
    for i, (_, bird) in enumerate(birds.questions(count)):
        noise = np.random.default_rng([1, i])
        picture = birds.draw(bird, pixels, noise)
        task = TASKS[name](bird, picture, noise)
        (own,) = pipeline.edit(
            task.picture, birds.caption(task.wanted, noise), task.mask, seed=i, **task.options, **how
        )
        masked = {name: value for name, value in task.options.items() if name == "outpaint"}
        kept = drafted(pipeline, task.picture, task.mask, EditingConfig(**masked))
        before = pipeline.image.encode(kept.pixels[None].float() / 255)[0]
        stayed.append((torch.tensor(own.codes) == before)[~kept.drawn].float().mean().item())
        found.append(Edit(picture, own, bird, task.wanted))
    return found, sum(stayed) / len(stayed)


def figures(found: Sequence[Edit]) -> dict[str, object]:
    """Whether what was asked for anew is there, and whether every other part is as it was in the picture before."""
    asked, rest = [], []
    for edit in found:
        was, now = bird_reader.measure(edit.before), bird_reader.measure(edit.after.image)
        anew = [part for part in PALETTES if getattr(edit.bird, part) != getattr(edit.wanted, part)] or list(PALETTES)
        asked += [now[part] == getattr(edit.wanted, part) for part in anew]
        rest += [now[part] == was[part] for part in PALETTES if part not in anew]
    figures = {"as asked": dataclasses.asdict(share(asked))}
    return figures | ({"others as before": dataclasses.asdict(share(rest))} if rest else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--sheet", help="a PNG of the first pictures, before and after")
    a = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = Pipeline.load(a.run, "cpu")
    for name, (way, options) in product(TASKS, WAYS.items()):
        began = time.process_time()
        found, stayed = edited(pipeline, name, a.count, {"guidance": a.guidance, "top_p": a.top_p, **options})
        row("edits", configuration=name, way=way, count=a.count, guidance=a.guidance, top_p=a.top_p,
            cpu_seconds=round(time.process_time() - began, 1), codes_kept=stayed, **figures(found))  # fmt: skip
        if a.sheet:
            shown = [p for edit in found[:16] for p in (Picture(edit.before, "before", 0), edit.after)]
            path = Path(a.sheet).with_stem(re.sub(r"\W+", "-", f"{Path(a.sheet).stem} {name} {way}"))
            contact_sheet(shown).save(path)


if __name__ == "__main__":
    main()
