"""Tessera against DALLE-pytorch 1.6.6 at the 2021 notebook's configuration, taking turns on the same machine.

python bench/against.py train|draw [--threads N] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

import original
from common import Rival, medians, row

WORDS = 16
DEVICE = ["cuda"] if torch.cuda.is_available() else []
# name: (kind, batch, precision, compile, recompute, from pictures)
TRAINING = {
    "float32, pictures": ("notebook", 4, "float32", "off", "auto", True),
    "float32, pictures, activations kept": ("notebook", 4, "float32", "off", "off", True),
    "bf16 compiled, codes": ("notebook", 4, "bf16", "on", "off", False),
    "native, bf16 compiled, codes": ("native", 4, "bf16", "on", "auto", False),
    "native, bf16 compiled, codes, batch 16": ("native", 16, "bf16", "on", "auto", False),
}  # fmt: skip
# name: (weights, compiled, batch, guidance)
DRAWING = {
    "float32": ("float32", False, 1, 1.0),
    "float32, batch 8": ("float32", False, 8, 1.0),
    "float32, guidance 3": ("float32", False, 1, 3.0),
    "float32 compiled": ("float32", True, 1, 1.0),
    "int8": ("int8", False, 1, 1.0),
    "int8 compiled": ("int8", True, 1, 1.0),
    "bf16 compiled": ("bf16", True, 1, 1.0),
    "bf16, batch 8": ("bf16", False, 8, 1.0),
}
SAMPLED = (0, 128, 256, 384, 512, 640, 768, 896, 1022)


def train(rounds: int, threads: int) -> None:
    theirs = Rival("original.py", *DEVICE, path=str(original.place()), threads=threads)
    theirs("data", batch=4, words=WORDS)
    ours = {}
    for name, (kind, batch, precision, compile, recompute, _) in TRAINING.items():
        ours[name] = Rival("ours.py", threads=threads)
        ours[name]("train", kind=kind, batch=batch, words=WORDS, precision=precision, compile=compile,
                   recompute=recompute)  # fmt: skip
    found: dict[str, list[Any]] = {name: [] for name in ("theirs", *ours)}
    first: dict[str, Any] = {}
    for turn in range(rounds + 2):
        answers = {"theirs": theirs("step")}
        answers |= {name: rival("step", pictures=TRAINING[name][5]) for name, rival in ours.items()}
        first = first or answers
        for name, told in answers.items():
            if turn >= 2:  # the second one has Adam's state and compiled kernels
                found[name].append(told)
    base = medians(found["theirs"])
    base["working"] = working(theirs, first["theirs"], found["theirs"])
    row("train-step", configuration="DALLE-pytorch 1.6.6, float32, pictures", seconds=base["seconds"],
        spread=base["spread"], cpu=base["cpu"], working_gb=base["working"] / 1e9)  # fmt: skip
    for name, rival in ours.items():
        mine, beyond = medians(found[name]), working(rival, first[name], found[name])
        row("train-step", configuration=name, seconds=mine["seconds"], spread=mine["spread"], cpu=mine["cpu"],
            working_gb=beyond / 1e9, alternative="DALLE-pytorch 1.6.6",
            ratio=TRAINING[name][1] / 4 * base["seconds"] / mine["seconds"],
            working_ratio=beyond / base["working"])  # fmt: skip
        rival.close()
    theirs.close()


def working(rival: Rival, first: dict[str, Any], told: list[dict[str, Any]]) -> float:
    """Bytes at the worst moment beyond what was there before the first step, the gradients and Adam's state."""
    held = rival("held")["value"]
    return max(t["before"] + t["growth"] for t in told) - first["before"] - held["gradients"] - held["optimizer"]


def draw(rounds: int, threads: int) -> None:
    theirs = Rival("original.py", *DEVICE, path=str(original.place()), threads=threads)
    theirs("data", batch=1, words=WORDS)
    theirs("evaluate")
    ours = {}
    for name, (weights, compile, _, _) in DRAWING.items():
        ours[name] = Rival("ours.py", threads=threads)
        ours[name]("load", kind="notebook", weights=weights, compile=compile)
    found: dict[str, list[float]] = {name: [] for name in ("default", "cached", "guided", *ours)}
    for turn in range(rounds + 1):
        told = {"default": sampled(theirs, 1.0), "cached": theirs("draw_cached", limit=1024)["seconds"]}
        told["guided"] = sampled(theirs, 3.0)
        for name, rival in ours.items():
            _, _, batch, guidance = DRAWING[name]
            told[name] = rival("draw", batch=batch, guidance=guidance)["seconds"] / batch
        for name, seconds in told.items():
            if turn:
                found[name].append(seconds)
    median = {name: statistics.median(seconds) for name, seconds in found.items()}
    spread = {name: max(seconds) - min(seconds) for name, seconds in found.items()}
    about = {"default": "default path (nine codes timed, the others between them)", "cached": "cached forward by hand",
             "guided": "default path, guidance 3 (likewise)"}  # fmt: skip
    for name, text in about.items():
        row("draw", configuration=f"DALLE-pytorch 1.6.6, {text}", seconds=median[name], spread=spread[name])
    for name in ours:
        row("draw", configuration=name, seconds=median[name], spread=spread[name], alternative="DALLE-pytorch 1.6.6",
            ratio=median["default"] / median[name], ratio_cached=median["cached"] / median[name],
            to_float32=median[name] / median["float32"])  # fmt: skip
    for rival in (theirs, *ours.values()):
        rival.close()


def sampled(rival: Rival, guidance: float) -> float:
    """Seconds of 1,024 codes from those of nine, by the trapezoid rule: the cost grows smoothly with the position."""
    times = [min(rival("draw", limit=2, start=start, guidance=guidance)["value"]) for start in SAMPLED]
    steps = zip(zip(SAMPLED, times, strict=True), zip(SAMPLED[1:], times[1:], strict=True), strict=False)
    return sum((b - a) * (s + t) / 2 for (a, s), (b, t) in steps) * 1024 / SAMPLED[-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", choices=["train", "draw"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    {"train": train, "draw": draw}[asked.question](asked.rounds, asked.threads)
