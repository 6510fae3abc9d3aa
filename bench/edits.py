"""Does an edit do what was asked, and nothing else? Built-in birds that were never learned are drawn by the program; of
each the wings and the tail are masked and asked for in another colour. A reader of colours looks at the whole bird.

    python bench/edits.py RUN [--count 200] [--guidance 2] [--top-p 0.9] [--sheet sheet.png]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from common import row
from tessera.evaluate.intervals import share
from tessera.generate.masks import asked, draft, opened
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


Edit = tuple[Image.Image, Picture, Bird]
"""A picture before and after, and the bird that was asked for."""


def edited(pipeline: Pipeline, count: int, how: dict[str, object]) -> tuple[list[Edit], float]:
    """Edits, and the share of codes outside of the masks that stayed."""
    found, stayed, pixels = [], [], pipeline.image.pixels
    for i, (_, bird) in enumerate(birds.questions(count)):
        noise = np.random.default_rng([1, i])
        picture, wanted = birds.draw(bird, pixels, noise), repainted(bird, noise)
        mask = wings_of(bird, pixels)
        (own,) = pipeline.edit(picture, birds.caption(wanted, noise), mask, seed=i, **how)
        kept = draft(opened(picture, 3, "image"), asked(picture, mask), (0, 0, 0, 0), pixels, pipeline.image.grid)
        before = pipeline.image.encode(kept.pixels[None].float() / 255)[0]
        stayed.append((torch.tensor(own.codes) == before)[~kept.drawn].float().mean().item())
        found.append((picture, own, wanted))
    return found, sum(stayed) / len(stayed)


def figures(found: Sequence[Edit]) -> dict[str, object]:
    """Whether the wings are as asked, and every other part as it was."""
    wings, rest = [], {part: [] for part in PALETTES if part != "wings"}
    for before, after, wanted in found:
        was, now = bird_reader.measure(before), bird_reader.measure(after.image)
        wings.append(now["wings"] == wanted.wings)
        for part, same in rest.items():
            same.append(was[part] == now[part])
    every = [all(parts) for parts in zip(*rest.values(), strict=True)]
    parts = [one for same in rest.values() for one in same]
    return {
        "wings as asked": dataclasses.asdict(share(wings)), "parts unchanged": dataclasses.asdict(share(parts)),
        "all four unchanged": dataclasses.asdict(share(every)),
        "by part": {part: round(sum(same) / len(same), 4) for part, same in rest.items()},
    }  # fmt: skip


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
    for way, options in WAYS.items():
        began = time.process_time()
        found, stayed = edited(pipeline, a.count, {"guidance": a.guidance, "top_p": a.top_p, **options})
        row("edits", configuration=way, count=a.count, guidance=a.guidance, top_p=a.top_p,
            cpu_seconds=round(time.process_time() - began, 1), codes_kept=stayed, **figures(found))  # fmt: skip
        if a.sheet:
            shown = [p for before, after, wanted in found[:16] for p in (Picture(before, "before", 0), after)]
            contact_sheet(shown).save(
                Path(a.sheet).with_stem(f"{Path(a.sheet).stem}-{way.replace(', ', '-').replace(' ', '-')}")
            )


if __name__ == "__main__":
    main()
