"""What would a user pick instead to train from scratch? The same photographs, machine, wall time and ruler for all.

    python bench/rivals.py NAME PICTURES [--minutes 30] [--seed 0] [--drawn 500] [--pixels 64]
    python bench/rivals.py table

Each learns from what `tessera learn` learns from and draws the held-out captions that `tessera evaluate` asks for; its
drawings are judged as `evaluate` judges. The others have all of the time for training; `tessera`, as `learn` does, has
checking, encoding, the race of drawing settings and the report in it too. Drawing what is judged comes after it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import original
from common import RESULTS, placed, row
from rival_task import CLOCKS, DRAWINGS, LEARNED, TASK, TOLD
from tessera.data.check import check
from tessera.data.pictures import middle_square, read, resized, to_image
from tessera.data.sources import Pair
from tessera.data.split import split
from tessera.errors import ConfigError
from tessera.evaluate import measuring, texts
from tessera.evaluate.drawings import Asked, asked
from tessera.evaluate.features import load, seen
from tessera.evaluate.figures import Figure
from tessera.evaluate.ground import HELD
from tessera.evaluate.kept import Arrays, Kept, of_tensor
from tessera.evaluate.looking import Look, floats, shrunk, spread
from tessera.generate.pipeline import Pipeline
from tessera.models import saved
from tessera.models.saved import parameters
from tessera.store.run import Run, checkpoint_of

GROUPS = 3
"""Drawings are measured in so many groups, as `evaluate` has them."""
BATCH = 50
FINE = 2
"""Rivals get pictures this many times as large as they learn them, to crop and shrink them as they do."""
DIFFUSERS = ["diffusers==0.42.1", "importlib_metadata", "zipp"]
"""What it wants beside (huggingface_hub, safetensors, regex, requests) comes with tessera-t2i[dev]."""


@dataclass(frozen=True)
class Course:
    """What everybody is given."""

    folder: Path
    pictures: str
    minutes: float
    seed: int
    pixels: int
    learned: Sequence[Pair]
    held: Sequence[Pair]
    wanted: Sequence[Asked]
    holdout: float
    flip: bool
    threads: int
    clock: str


def course(
    pictures: str, folder: Path, minutes: float, seed: int, drawn: int, pixels: int, threads: int, clock: str
) -> Course:
    """Split as `learn` splits, and asked as `evaluate` asks."""
    health = check(pictures, "", folder / "data.json")
    found = health.settings()
    learned, held = split(health.pairs, found["holdout"])
    held = spread(held, HELD)
    return Course(folder, pictures, minutes, seed, pixels, learned, held, asked(held, drawn, 0), found["holdout"],
                  found["flip"], threads, clock)  # fmt: skip


# Learning. Each leaves folders of drawings, and says what it took.

Learner = Callable[[Course], dict[str, Any]]


def elsewhere(script: str, recipe: str, place: Callable[[], Path]) -> Learner:
    """A rival in a process of its own, with packages of its own on its path."""

    def learn(course: Course) -> dict[str, Any]:
        path = place()
        hand_over(course)
        command = [sys.executable, str(Path(__file__).parent / script), str(course.folder), recipe]
        subprocess.run(command, check=True, env=environment(course.threads) | {"PYTHONPATH": str(path)})
        return json.loads((course.folder / TOLD).read_text("utf-8"))

    return learn


def environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def hand_over(course: Course) -> None:
    """Write the task: pictures whose shorter side is twice what is learned, and captions."""
    (course.folder / LEARNED).mkdir(parents=True, exist_ok=True)
    for i, pair in enumerate(course.learned):
        picture = to_image(floats(read(pair.image, 3)))
        scale = FINE * course.pixels / min(picture.size)
        sides = [max(FINE * course.pixels, round(side * scale)) for side in picture.size]
        picture.resize(sides, Image.Resampling.LANCZOS).save(course.folder / LEARNED / f"{i:05d}.png")
    about = {
        "pixels": course.pixels, "seconds": course.minutes * 60, "seed": course.seed, "flip": course.flip,
        "clock": course.clock,
        "learned": [list(pair.captions) for pair in course.learned],
        "asked": [(a.caption, a.seed) for a in course.wanted],
    }  # fmt: skip
    (course.folder / TASK).write_text(json.dumps(about), "utf-8")


def tessera(course: Course) -> dict[str, Any]:
    """`tessera learn` with nothing but a budget, drawn as the run usually draws."""
    out = course.folder / "run"
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    options = {
        "out": out,
        "budget": f"{course.minutes:g}m",
        "seed": course.seed,
        "pixels": course.pixels,
        "device": "cpu",
    }
    learn = ["learn", course.pictures, *(word for k, v in options.items() for word in (f"--{k}", str(v)))]
    subprocess.run([sys.executable, "-m", "tessera", *learn], check=True, env=environment(course.threads))
    took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if Run(out).config().data.holdout != course.holdout:
        raise ConfigError(f"{out} held out another share of the pictures than {course.holdout}: the split differs.")
    torch.set_num_threads(course.threads)
    pipeline, began = Pipeline.load(out, "cpu"), time.monotonic()
    folder = course.folder / DRAWINGS / "usual"
    folder.mkdir(parents=True)
    prompts, seeds = [a.caption for a in course.wanted], [a.seed for a in course.wanted]
    for i, picture in enumerate(pipeline.draw(prompts, seeds, pipeline.sampling, batch=BATCH, truncate=True)):
        picture.image.save(folder / f"{i:05d}.png")
    return {
        "steps": max(r["step"] for r in Run(out).read_metrics()), "seconds_of_training": round(took, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "parameters": parameters(saved.read(checkpoint_of(out))), "codes": pipeline.model.config.grid**2,
        "seconds_a_drawing": round((time.monotonic() - began) / len(prompts), 3),
    }  # fmt: skip


def diffusers() -> Path:
    return placed("diffusers-0.42.1", DIFFUSERS, {})


RIVALS: Mapping[str, Learner] = {
    "dalle": elsewhere("rival_dalle.py", "scripts", original.place),
    "dalle-fitted": elsewhere("rival_dalle.py", "fitted", original.place),
    "diffusion": elsewhere("rival_diffusion.py", "recipe", diffusers),
    "diffusion-fast": elsewhere("rival_diffusion.py", "fast", diffusers),
    "tessera": tessera,
}


# Judging.


class Ruler:
    """Lite2 on the photographs, which are looked at once."""

    def __init__(self, course: Course):
        self.course, self.features = course, load("lite2", "cpu")
        self.kept = Kept(course.folder / "kept")
        self.learned, self.held = (self.look(squares(p, course.pixels)) for p in (course.learned, course.held))

    def look(self, pixels: Tensor) -> Look:
        """At uint8 pictures [B, 3, S, S]; without codes, which not every rival has."""

        def make() -> Arrays:
            found = seen(self.features, floats(pixels))
            assert found.probabilities is not None
            return {"features": found.features.numpy(), "probabilities": found.probabilities.numpy()}

        found = self.kept.get("seen", [self.features.name, of_tensor(pixels)], make)
        sight = (torch.from_numpy(found[name]) for name in ("features", "probabilities"))
        return Look(*sight, shrunk(pixels), torch.zeros(len(pixels), 1, dtype=torch.long))

    def figures(self, folder: Path) -> list[Figure]:
        """Of the drawings in a folder, by the functions of `evaluate`. No floor: it is made of a rival's own codes."""
        wanted = self.course.wanted
        drawn = self.look(torch.stack([pixels_of(folder / f"{i:05d}.png") for i in range(len(wanted))]))
        group = torch.arange(len(wanted)) * GROUPS // len(wanted)
        sets = measuring.Sets([drawn[group == g] for g in range(GROUPS)], self.held, self.held, self.held)
        name, held = self.features.name, self.course.held
        words, _ = texts.words(self.course.learned, self.learned, wanted, drawn, held, self.held, self.held, name)
        return [*measuring.drawings(self.learned, sets, name, 0), words]


def squares(pairs: Sequence[Pair], side: int) -> Tensor:
    """The middle squares of pictures, as `evaluate` sees them, uint8 [B, 3, S, S]."""
    pictures = (read(pair.image, 3) for pair in pairs)
    return torch.stack([resized(p, middle_square(*p.shape[1:]), side) for p in pictures])


def pixels_of(path: Path) -> Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


def judged(name: str, course: Course, told: Mapping[str, Any]) -> None:
    """A row for each way of drawing."""
    ruler = Ruler(course)
    for folder in sorted((course.folder / DRAWINGS).iterdir()):
        figures = {
            f.name: {"value": asdict(f.value), "photographs": asdict(f.ceiling) if f.ceiling else None}
            for f in ruler.figures(folder)
        }
        row("rivals", configuration=name, way=folder.name, pictures=Path(course.pictures).name, minutes=course.minutes,
            seed=course.seed, threads=course.threads, clock=course.clock, pixels=course.pixels,
            learned=len(course.learned), drawn=len(course.wanted), **told, figures=figures)  # fmt: skip


def table() -> list[str]:
    """The newest row of each rival, way of drawing, data, time and seed, as Markdown."""
    file = RESULTS / "rivals.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    keys = ("pictures", "minutes", "configuration", "way", "seed")
    newest = {tuple(r[k] for k in keys): r for r in rows}
    names = list(dict.fromkeys(name for r in newest.values() for name in r["figures"]))
    lines = [f"| {' | '.join([*keys, 'epochs', 'CPU s', *names])} |", "|" + "---|" * (len(keys) + 2 + len(names))]
    for key in sorted(newest):
        r = newest[key]
        cells = [*map(str, key), str(r.get("epochs", "-")), f"{r['cpu_seconds']:.0f}"]
        for name in names:
            e = r["figures"][name]["value"] if name in r["figures"] else None
            cells.append(f"{e['value']:.3g} [{e['low']:.3g}, {e['high']:.3g}]" if e else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*RIVALS, "table"])
    parser.add_argument("pictures", nargs="?", default="", help="folder of captioned pictures")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drawn", type=int, default=500, help="drawings that are judged")
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what the minutes of a rival are")
    parser.add_argument("--out", help="folder of this run, which must not be there")
    a = parser.parse_args(words)
    if a.name == "table":
        print("\n".join(table()))
        return
    out = Path(a.out or f"runs/rivals/{a.name}-{a.minutes:g}m-{a.seed}-{time.strftime('%m%d-%H%M')}")
    if not a.pictures:
        sys.exit("Name the folder of captioned pictures.")
    if out.exists():
        sys.exit(f"{out} is there already, and what it took before cannot be measured. Name another --out.")
    if a.clock != "wall" and a.name == "tessera":
        sys.exit("`tessera learn` counts by the wall. Take --clock wall.")
    given = course(a.pictures, out, a.minutes, a.seed, a.drawn, a.pixels, a.threads, a.clock)
    judged(a.name, given, RIVALS[a.name](given))


if __name__ == "__main__":
    main(sys.argv[1:])
