"""Does guessing codes ahead pay? One picture of a small trained prior, 1 to 32 codes at a time, taking turns."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from common import row
from curves import pictures, trained
from tessera.config import SampleConfig
from tessera.generate import raster
from tessera.generate.pipeline import Pipeline

AHEAD = (1, 2, 4, 8, 16, 32)
SAMPLING = {"guidance 1": {}, "guidance 2, top-p 0.6": {"guidance": 2.0, "top_p": 0.6}}
PICTURES = 9


def main(folder: Path) -> None:
    pictures(folder)
    pipeline = Pipeline.load(trained(folder, "float32").best(), device="cpu")
    tokens = pipeline.tokens(["a red bird with a yellow beak"])
    raster.codes(pipeline.model, tokens, [0], SampleConfig())
    for name, sampling in SAMPLING.items():
        seconds: dict[int, list[float]] = {ahead: [] for ahead in AHEAD}
        steps = dict.fromkeys(AHEAD, 0)
        for seed in range(PICTURES):
            alone = torch.empty(0)
            for ahead in AHEAD:
                reads: list[int] = []
                config = SampleConfig(ahead=ahead, **sampling)
                began = time.perf_counter()
                drawn = raster.codes(pipeline.model, tokens, [seed], config, on_step=lambda d, r=reads: r.append(1))
                seconds[ahead].append(time.perf_counter() - began)
                steps[ahead] += len(reads)
                alone = drawn if ahead == 1 else alone
                assert torch.equal(drawn, alone)
        median = {ahead: statistics.median(taken) for ahead, taken in seconds.items()}
        for ahead in AHEAD:
            row("ahead", configuration=f"{name}, {ahead} at a time", seconds=median[ahead],
                spread=max(seconds[ahead]) - min(seconds[ahead]), alternative="code by code",
                codes_a_step=PICTURES * drawn.numel() / steps[ahead], ratio=median[1] / median[ahead])  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(place))
