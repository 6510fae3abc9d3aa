"""The 2021 notebook's configuration: by how much does a step grow the process, and how long does one picture take?

256 text and 1,024 image positions, vocabularies of 49,408 and 8,192, dim 512, depth 2, 4 heads of 64, reversible,
token shift, rotary, batch 4, float32, Adam.
"""

from __future__ import annotations

import dataclasses
import resource
import time

import torch

from common import row
from tessera.config import SampleConfig
from tessera.generate import sample
from tessera.models.text_to_image import TextToImage
from tessera.presets import preset
from tessera.train.optim import optimizer_of


def peak() -> float:
    """GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    config = preset("t2i-dalle1-256")
    torch.manual_seed(0)
    model = TextToImage(dataclasses.replace(config.model, text_vocab=49408, image_vocab=8192, grid=32))
    optimizer = optimizer_of(config.optim)(model)
    tokens, codes = torch.randint(1, 49408, (4, 256)), torch.randint(0, 8192, (4, 1024))
    before, steps, first = peak(), [], 0.0
    for _ in range(4):
        began = time.perf_counter()
        loss = model(tokens, codes).total
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        first = first or loss.item()
        steps.append(time.perf_counter() - began)
    row(
        "notebook-step",
        first_loss=first,
        growth_gb=peak() - before,
        seconds=sorted(steps)[1],
        spread=max(steps) - min(steps),
    )
    sample.lay_out_for_decoding(model.eval())
    for threads in (1, 2):
        torch.set_num_threads(threads)
        seconds = []
        for seed in range(3):
            began = time.perf_counter()
            sample.codes(model, tokens[:1], [seed], SampleConfig())
            seconds.append(time.perf_counter() - began)
        row(
            "notebook-draw",
            seconds=sorted(seconds)[1],
            spread=max(seconds) - min(seconds),
            per_code_ms=sorted(seconds)[1] / 1.024,
        )


if __name__ == "__main__":
    main()
