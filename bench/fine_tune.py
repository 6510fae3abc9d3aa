"""Is a VQGAN that knows other pictures worth having? One learns OTHER for so many seconds, is imported, and learns
PICTURES; the same network learns PICTURES from nothing in the same time. Both are judged as image tokenizers are, on
photographs that they never saw, on a clock that counts this process's CPU seconds.

    python bench/fine_tune.py PICTURES OTHER OUT SECONDS SEED [SECONDS_OF_OTHER]
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

import tessera
from common import row
from image_tokenizers import Judge, trained
from tessera.config.presets import preset
from tessera.evaluate.kept import Kept
from tessera.evaluate.subject import Subject
from tessera.imports.runs import bring_in
from tessera.store.run import Run
from tessera.train import loop

PRESET = preset("vqgan-s-64")


def went_on(first: Run, like: Run, out: Path) -> Run:
    """What a run has learned, imported, and trained as another run was."""
    if not out.exists():
        bring_in(str(first.folder), out)
    return tessera.train(dataclasses.replace(like.config(), out=str(out)))


def main(pictures: str, other: str, out: str, seconds: str, seed: str, before: str = "") -> None:
    torch.set_num_threads(1)
    loop.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]
    judge, folder = Judge(Kept(Path(out) / "kept")), lambda name: Path(out) / f"{name}-{seconds}-{seed}"
    variant = (PRESET.model, PRESET.optim)
    first = trained(variant, other, folder("other"), int(before or seconds), int(seed))

    def tell(name: str, work: Callable[[], Run]) -> Run:
        began, run = time.process_time(), work()
        spent, steps = time.process_time() - began, max(r["step"] for r in run.read_metrics())
        figures = judge.figures(
            Subject.load(run.folder, device="cpu"), Path(out) / f"{name.replace(' ', '-')}-{seconds}-{seed}.png"
        )
        row("tokenizers", configuration=name, cpu_seconds=round(spent, 1), steps=steps, seed=int(seed), **figures)
        return run

    nothing = tell("vqgan from nothing", lambda: trained(variant, pictures, folder("nothing"), int(seconds), int(seed)))
    tell("vqgan fine-tuned", lambda: went_on(first, nothing, folder("fine-tuned")))


if __name__ == "__main__":
    main(*sys.argv[1:])
