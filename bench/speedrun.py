"""How long does the whole journey take until a fixed target is met on fixed data? `tessera learn` runs with a budget,
from the folder to the report, and what it draws is measured: a row says the minutes, the CPU seconds, and whether that
sufficed.

    python bench/speedrun.py birds|shapes --budget 4m [--seed 0] [--note "what changed"] [options of learn]
    python bench/speedrun.py photographs --data PICTURES --budget 30m ...
    python bench/speedrun.py table

The data is there before the clock starts, and is the same for every seed; the measuring comes after it has stopped.
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

import torch

from common import RESULTS, row
from tessera.config import EvaluateConfig, PicturesConfig
from tessera.errors import ConfigError
from tessera.evaluate.evaluation import evaluate
from tessera.evaluate.intervals import Estimate, bootstrap, share
from tessera.generate.defaults import usual
from tessera.generate.pipeline import Pipeline
from tessera.journeys import bird_reader, birds, shape_reader, shapes

BIRDS, QUESTIONS, BATCH = 8000, 200, 40
"""As the demo has them."""
DRAWN = 500
KID, SUBJECT = "KID-Lite2 × 1000", "subject rate-Lite2"


@dataclass(frozen=True)
class Goal:
    """A figure and what is asked of it."""

    name: str
    found: Estimate
    wanted: float
    better: str

    @property
    def met(self) -> bool:
        return self.found.value <= self.wanted if self.better == "lower" else self.found.value >= self.wanted

    def row(self) -> dict[str, Any]:
        return {**asdict(self.found), "wanted": self.wanted, "met": self.met}


@dataclass(frozen=True)
class Measured:
    goals: Sequence[Goal]
    figures: Mapping[str, Any]
    """What else is worth keeping."""


@dataclass(frozen=True)
class Target:
    """Fixed data, how it is learned, and what must come of it."""

    fill: Callable[[Path], None]
    """Draw the data into a folder that is not there."""
    options: Mapping[str, str]
    """Of `learn`; those of the command line come before them."""
    measure: Callable[[Path, Path], Measured]
    """Of a run folder and its data."""


def drawn(run: Path, captions: Sequence[str]) -> list[Any]:
    """One picture of each caption, drawn as the run usually does; seeds count from 0."""
    pipeline = Pipeline.load(run, "cpu")
    seeds = range(len(captions))
    return [p.image for p in pipeline.draw(captions, seeds, pipeline.sampling, batch=BATCH, truncate=True)]


def colours(run: Path, data: Path) -> Measured:
    """The share of asked colours of birds that were never learned."""
    asked = birds.questions(QUESTIONS)
    right = bird_reader.hits(drawn(run, [caption for caption, _ in asked]), [bird for _, bird in asked])
    each = [sum(hits) / len(hits) for hits in zip(*right.values(), strict=True)]
    parts = {part: sum(hits) / len(hits) for part, hits in right.items()}
    return Measured([Goal("asked colours", bootstrap(each), 0.9, "higher")], parts)


def exactness(run: Path, data: Path) -> Measured:
    """The share of shapes that were never learned and are drawn exactly."""
    asked = shapes.questions(QUESTIONS)
    right = shape_reader.right(drawn(run, [caption for caption, _ in asked]), [shape for _, shape in asked])
    parts = {part: sum(hits) / len(hits) for part, hits in right.items()}
    return Measured([Goal("exact", share(right["exact"]), 0.9, "higher")], parts)


def looks(run: Path, data: Path) -> Measured:
    """KID as good as photographs in shuffled 16 x 16 blocks, and a subject in half as many drawings as photographs."""
    config = EvaluateConfig(
        data=PicturesConfig(path=str(data)), count=DRAWN, ranked=0, device="cpu", **asdict(usual(run))
    )
    figures = {
        f.name: f for f in evaluate(str(run), config, lambda title: lambda items, total: items).evaluation.figures
    }
    subject = figures[SUBJECT]
    assert subject.ceiling, "held-out photographs were looked at"
    goals = [
        Goal(KID, figures[KID].value, 75, "lower"),
        Goal(SUBJECT, subject.value, subject.ceiling.value / 2, "higher"),
    ]
    return Measured(goals, {name: f.value.value for name, f in figures.items()})


def given(folder: Path) -> None:
    """Photographs are not drawn here."""
    raise ConfigError(f"The folder {folder} does not exist. Name a folder of captioned photographs: --data PICTURES.")


TARGETS = {
    "birds": Target(
        lambda f: birds.draw_folder(f, BIRDS), {"--grid": "8", "--crop": "1", "--perceptual": "none"}, colours
    ),
    "photographs": Target(given, {}, looks),
    "shapes": Target(shapes.draw_folder, {"--crop": "1"}, exactness),
}


def options(target: Target, more: Sequence[str]) -> list[str]:
    """Of `learn`: the target's own and those that were given, which win. Raises ConfigError where they lack a value."""
    if len(more) % 2 or not all(name.startswith("--") for name in more[::2]):
        raise ConfigError(f"Options of learn come as --name value; '{' '.join(more)}' does not.")
    every = {**target.options, **dict(zip(more[::2], more[1::2], strict=True))}
    return [word for pair in every.items() for word in pair]


def journey(command: Sequence[str], threads: int) -> tuple[float, float]:
    """Seconds of wall time and of CPU time, children included, that `tessera` takes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, "-m", "tessera", *command], check=True, env=environment)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(name: str, data: Path, out: Path, budget: str, seed: int, threads: int, note: str, more: Sequence[str]) -> None:
    target = TARGETS[name]
    chosen = options(target, more)
    if out.exists():
        raise ConfigError(f"{out} is there already, and what it took before cannot be measured. Name another --out.")
    if not data.exists():
        target.fill(data)
    torch.set_num_threads(threads)
    learn = ["learn", str(data), "--out", str(out), "--budget", budget, "--seed", str(seed), "--device", "cpu"]
    wall, cpu = journey([*learn, *chosen], threads)
    found = target.measure(out, data)
    goals = {goal.name: goal.row() for goal in found.goals}
    row("speedrun", configuration=name, minutes=round(wall / 60, 2), cpu_seconds=round(cpu),
        met=all(goal.met for goal in found.goals), goals=goals, figures=found.figures, changed=note, budget=budget,
        seed=seed, threads=threads, options=" ".join(chosen))  # fmt: skip


def table() -> list[str]:
    """The rows of every target, oldest first, as Markdown."""
    file = RESULTS / "speedrun.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    lines = ["| target | date | commit | minutes | CPU s | seed | figures | met | what changed |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in sorted(rows, key=lambda r: list(TARGETS).index(r["configuration"])):
        figures = "; ".join(
            f"{name} {g['value']:.3g} [{g['low']:.3g}, {g['high']:.3g}] of {g['wanted']:.3g}"
            for name, g in r["goals"].items()
        )
        lines.append(
            f"| {r['configuration']} | {r['date']} | {r['commit']} | {r['minutes']} | {r['cpu_seconds']} | {r['seed']} "
            f"| {figures} | {'yes' if r['met'] else 'no'} | {r['changed']} |"
        )
    return lines


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=[*TARGETS, "table"])
    parser.add_argument("--budget", default="12m", help="of learn, for the whole journey")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="the pictures; drawn where that can be done and they are not there")
    parser.add_argument("--out", help="run folder, which must not be there")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--note", default="", help="what changed since the last row")
    a, more = parser.parse_known_args(words)
    if a.target == "table":
        print("\n".join(table()))
        return
    folder = Path("runs/speedrun")
    out = Path(a.out or folder / f"{a.target}-{a.budget}-{a.seed}-{time.strftime('%m%d-%H%M')}")
    try:
        run(a.target, Path(a.data or folder / "data" / a.target), out, a.budget, a.seed, a.threads, a.note, more)
    except ConfigError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
