"""Do an image tokenizer's codes collapse on pictures unlike photographs? Flat shapes, sprites and line drawings are
learned as `learn` would learn them, at its own rates and at twice them, for so many seconds of one core; what stands
for the collapse itself is the constant width that `learn` once took.

    python bench/collapse.py OUT [SET ...] [--seconds 40] [--seed 0] [--pictures 600]
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

import drawn_sets
import tessera
from common import row
from tessera.config import FSQ, DVAEConfig, LearnConfig, MachineConfig, OptimConfig, TrainConfig
from tessera.data.check import check
from tessera.data.pictures import grid_image
from tessera.evaluate import metrics
from tessera.evaluate.looking import floats
from tessera.evaluate.subject import Subject
from tessera.journeys import shapes
from tessera.journeys.choice import choose
from tessera.journeys.stages import stages
from tessera.train import loop

PIXELS, SHOWN = 32, 16
SETS: dict[str, Callable[[Path, int], None]] = {
    "shapes": shapes.draw_folder,
    **{name: lambda folder, count, name=name: drawn_sets.fill(name, folder, count, PIXELS) for name in drawn_sets.SETS},
}


def as_learn(pictures: Path, perceptual: str, seconds: int, seed: int, out: Path) -> TrainConfig:
    """The first stage of `learn`, whatever the speed of this machine."""
    asked = LearnConfig(pictures=str(pictures), pixels=PIXELS, perceptual=perceptual, crop=1.0, seed=seed, device="cpu")  # type: ignore[arg-type]
    machine = MachineConfig(device="cpu", threads=1)
    chosen = choose(asked, check(str(pictures)), machine, lambda model, machine, batch: 100.0)
    return dataclasses.replace(stages(asked, chosen, machine, out)[0], budget=f"{seconds}s", out=str(out))


def faster(config: TrainConfig, times: float) -> TrainConfig:
    """At so many times its rates."""
    optim = dataclasses.replace(config.optim, lr=times * config.optim.lr, muon_lr=times * config.optim.muon_lr)
    return dataclasses.replace(config, optim=optim)


def constant_width(config: TrainConfig) -> TrainConfig:
    """What collapsed on flat shapes: 4 x 4 codes, width 64 everywhere, no norm before the codes."""
    model = DVAEConfig(pixels=PIXELS, layers=3, quantizer=FSQ(levels=(8, 5, 5, 5)))
    optim = OptimConfig(lr=2e-3, weight_decay=0.0, batch=128, warmup=50)
    return dataclasses.replace(config, model=model, optim=optim)


VARIANTS: dict[str, tuple[str, Callable[[TrainConfig], TrainConfig]]] = {
    "pixels alone": ("none", lambda config: config),
    "pixels alone, twice the rates": ("none", lambda config: faster(config, 2)),
    "with Lite0": ("lite0", lambda config: config),
    "with Lite0, twice the rates": ("lite0", lambda config: faster(config, 2)),
    "constant width": ("none", constant_width),
}


def measured(subject: Subject, sheet: Path) -> dict[str, float]:
    """Of held-out pictures: codes in use, how varied they are, how varied without the most frequent one, and what is
    seen of the pictures."""
    _, held = subject.readable(subject.held)
    codes = subject.codes(floats(held))
    again = subject.decoded(codes)
    grid_image(torch.cat((floats(held[:SHOWN]), again[:SHOWN])), SHOWN).save(sheet)
    used, perplexity = metrics.usage(codes, subject.image.vocab)  # type: ignore[union-attr]
    often = codes.flatten().mode().values
    others = codes[codes != often]
    wrong = (floats(held) - again).square().mean() / floats(held).var(0).mean()
    return {
        "codes": used, "perplexity": perplexity, "most frequent": float((codes == often).float().mean()),
        "perplexity of the others": math.exp(metrics.unigram_entropy(others)) if len(others) else 1.0,
        "psnr": metrics.psnr(floats(held), again), "variance left out": float(wrong),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="*", help=", ".join(SETS))
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=600)
    a = parser.parse_args()
    torch.set_num_threads(1)
    loop.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]
    for name in a.sets or SETS:
        pictures = a.out / name
        if not pictures.exists():
            SETS[name](pictures, a.pictures)
        for variant, (perceptual, change) in VARIANTS.items():
            out = a.out / f"{name}-{variant.replace(', ', '-').replace(' ', '-')}-{a.seed}"
            run = tessera.train(change(as_learn(pictures, perceptual, a.seconds, a.seed, out)))
            figures = measured(Subject.load(run.folder, device="cpu"), Path(f"{out}.png"))
            steps = max(r["step"] for r in run.read_metrics())
            row("collapse", configuration=f"{name}, {variant}", seconds=a.seconds, steps=steps, seed=a.seed, **figures)


if __name__ == "__main__":
    main()
