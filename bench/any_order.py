"""What does any order cost in training, and what do parallel steps gain and lose in drawing? Fresh weights of the
presets' sizes, because a prior's speed does not depend on what it learned; a run of built-in birds for what is lost.

    python bench/any_order.py train [--preset t2i-xs-64] [--grid 8] [--batch 32]
    python bench/any_order.py draw [--grid 8] [--steps 16] [--guidance 2]
    python bench/any_order.py colours --run RUN [--guidance 2] [--count 200]
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import torch

from common import median_of, row
from tessera.config import AnyOrderConfig, SampleConfig, TextToImageConfig
from tessera.config.presets import preset
from tessera.evaluate.intervals import bootstrap
from tessera.generate.decoder import DrawingBatch
from tessera.generate.decoders import decoder
from tessera.generate.given import Given
from tessera.generate.pipeline import Pipeline
from tessera.generate.weights import prepare
from tessera.journeys import bird_reader, birds
from tessera.models import saved
from tessera.models.text_to_image import TextToImage


def sized(name: str, grid: int) -> TextToImageConfig:
    model = preset(name).model
    assert isinstance(model, TextToImageConfig)
    return dataclasses.replace(model, text_vocab=1000, text_len=32, image_vocab=1000, grid=grid)


def made(config: TextToImageConfig) -> TextToImage:
    torch.manual_seed(0)
    model = saved.network(config)
    assert isinstance(model, TextToImage)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.02)
    return model


def train(asked: argparse.Namespace) -> None:
    seconds = {}
    for name in (asked.preset, asked.preset.replace("t2i-", "any-")):
        config = sized(name, asked.grid)
        model = made(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        tokens = torch.randint(0, 1000, (asked.batch, 32))
        codes = torch.randint(0, 1000, (asked.batch, asked.grid**2))
        any_order = isinstance(config, AnyOrderConfig)

        def step() -> None:
            order = [torch.rand(codes.shape).argsort(1)] if any_order else []  # noqa: B023
            model(tokens, codes, *order).total.backward()  # noqa: B023
            optimizer.step()  # noqa: B023
            optimizer.zero_grad()  # noqa: B023

        seconds[name], spread = median_of(step, 7, 2)
        figures = {
            "seconds": round(seconds[name], 4),
            "spread": round(spread, 4),
            "parameters": saved.parameters(model),
        }
        row("any-order", what="training step", preset=name, grid=asked.grid, batch=asked.batch, **figures)
    raster, other = seconds.values()
    row(
        "any-order",
        what="training step, ratio to raster",
        grid=asked.grid,
        batch=asked.batch,
        ratio=round(other / raster, 3),
    )


def draw(asked: argparse.Namespace) -> None:
    ways = {
        "code by code": {},
        f"{asked.steps} steps, halton": {"steps": asked.steps},
        f"{asked.steps} steps, random": {"steps": asked.steps, "order": "random"},
        f"{asked.steps} steps, confidence": {"steps": asked.steps, "order": "confidence"},
    }
    name = asked.preset.replace("t2i-", "any-")
    model = made(sized(name, asked.grid)).eval()
    prepare(model)
    own, first = decoder(model, False), 0.0
    for way, changes in ways.items():
        sampling = SampleConfig(guidance=asked.guidance, **changes)
        batch = DrawingBatch(torch.randint(0, 1000, (1, 32)), *Given.nothing(asked.grid**2), [0], sampling)
        seconds, spread = median_of(lambda: own.codes(batch), 7, 1)  # noqa: B023
        first = first or seconds
        figures = {"seconds": round(seconds, 4), "spread": round(spread, 4), "times_as_fast": round(first / seconds, 2)}
        row(
            "any-order",
            what="drawing one picture",
            preset=name,
            way=way,
            codes=asked.grid**2,
            guidance=asked.guidance,
            **figures,
        )


def colours(asked: argparse.Namespace) -> None:
    """The share of asked colours of birds that were never learned, by how they are drawn."""
    pipeline, questions = Pipeline.load(asked.run, "cpu"), birds.questions(asked.count)
    ways = {
        "code by code": {}, "code by code, by chance": {"order": "random"},
        **{f"{n} steps, halton": {"steps": n} for n in (32, 16, 8, 4)},
        "16 steps, confidence": {"steps": 16, "order": "confidence"},
        "8 steps, confidence": {"steps": 8, "order": "confidence"},
        "16 steps, halton, guidance grows": {"steps": 16, "guidance_schedule": "linear"},
    }  # fmt: skip
    for way, options in ways.items():
        sampling = SampleConfig(guidance=asked.guidance, top_p=0.9, **options)
        captions, wanted = [caption for caption, _ in questions], [bird for _, bird in questions]
        began = time.process_time()
        drawn = pipeline.draw(captions, range(len(captions)), sampling, batch=40, truncate=True)
        spent = time.process_time() - began
        right = bird_reader.hits([picture.image for picture in drawn], wanted)
        each = [sum(hits) / len(hits) for hits in zip(*right.values(), strict=True)]
        parts = {part: sum(hits) / len(hits) for part, hits in right.items()}
        row("any-order", what="asked colours", way=way, guidance=asked.guidance, count=asked.count,
            cpu_seconds=round(spent, 1), colours=dataclasses.asdict(bootstrap(each)), parts=parts)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "draw", "colours"))
    parser.add_argument("--preset", default="t2i-xs-64")
    parser.add_argument("--grid", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--run", default="", help="a run of any order that learned the built-in birds")
    parser.add_argument("--count", type=int, default=200)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    {"train": train, "draw": draw, "colours": colours}[asked.what](asked)


if __name__ == "__main__":
    main()
