"""What is left of a training step's rate beside another program? A small prior, quiet and beside a niced loop that
takes one core, with OpenMP's own way of waiting and with ours, in one run."""

from __future__ import annotations

import os
import subprocess
import sys
import time

OPENMP, OURS = {"GOMP_SPINCOUNT": "300000"}, {"GOMP_SPINCOUNT": "1000"}
WAYS = {"OpenMP waits by spinning": (OPENMP, False), "waiting threads sleep": (OURS, False)}
WAYS["waiting threads sleep, threads measured"] = (OURS, True)
SECONDS, TURNS = 12.0, 3


def samples_per_second(adapts: bool) -> float:
    """In a process of its own: OpenMP reads its settings once."""
    import torch

    from tessera.config import MachineConfig, OptimConfig, TextToImageConfig, TransformerConfig
    from tessera.models.text_to_image import TextToImage
    from tessera.train.engines.single import SingleEngine
    from tessera.train.optim import optimizer_of

    torch.manual_seed(0)
    transformer = TransformerConfig(dim=192, depth=4, heads=3)
    model = TextToImage(
        TextToImageConfig(text_vocab=1000, text_len=40, image_vocab=1000, grid=8, transformer=transformer)
    )
    engine = SingleEngine(MachineConfig(device="cpu"), adapts=adapts)
    trainee = engine.add(model, optimizer_of(OptimConfig()), clip=1.0)
    tokens, codes = torch.randint(1, 1000, (32, 40)), torch.randint(0, 1000, (32, 64))

    def step() -> None:
        with engine.autocast():
            total = trainee.model(tokens, codes)[0]
        trainee.backward(total)
        engine.step({"model": 1e-3})

    for _ in range(3):
        step()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        step()
        count += 1
    return 32 * count / (time.perf_counter() - began)


def measured(environment: dict[str, str], adapts: bool) -> float:
    command = [sys.executable, __file__, "adapts" if adapts else "fixed"]
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    return float(subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    import statistics

    from common import row

    found: dict[tuple[str, bool], list[float]] = {(way, busy): [] for way in WAYS for busy in (False, True)}
    for _ in range(TURNS):
        for busy in (False, True):
            loop = subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", "while True: pass"]) if busy else None
            try:
                for way, (environment, adapts) in WAYS.items():
                    found[way, busy].append(measured(environment, adapts))
            finally:
                if loop:
                    loop.kill()
                    loop.wait()
    for way in WAYS:
        quiet, busy = (statistics.median(found[way, b]) for b in (False, True))
        spread = [round(max(found[way, b]) - min(found[way, b]), 1) for b in (False, True)]
        row(
            "busy",
            way=way,
            quiet_per_s=round(quiet, 1),
            busy_per_s=round(busy, 1),
            kept=round(busy / quiet, 3),
            spread=spread,
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(samples_per_second(sys.argv[1] == "adapts"))
    else:
        main()
