"""Do bf16 autocast and torch.compile pay for a training step on this machine? `learn`'s own sizes, alternating."""

from __future__ import annotations

import time

import torch

from common import median_of, row
from tessera.config import FSQ, DVAEConfig, MachineConfig, OptimConfig, TextToImageConfig, TransformerConfig
from tessera.models.dvae import DiscreteVAE
from tessera.models.text_to_image import TextToImage
from tessera.train.engines.single import SingleEngine
from tessera.train.optim import optimizer_of

WAYS = {"float32": ("float32", "off"), "bf16": ("bf16", "off"), "bf16 compiled": ("bf16", "on")}


def prior() -> tuple[torch.nn.Module, tuple]:
    transformer = TransformerConfig(dim=256, depth=6, heads=4)
    model = TextToImage(
        TextToImageConfig(text_vocab=2000, text_len=32, image_vocab=216, grid=16, transformer=transformer)
    )
    return model, (torch.randint(1, 2000, (32, 32)), torch.randint(0, 216, (32, 256)))


def dvae() -> tuple[torch.nn.Module, tuple]:
    config = DVAEConfig(pixels=64, layers=2, hidden=64, quantizer=FSQ(levels=(6, 6, 6)))
    return DiscreteVAE(config), (torch.rand(32, 3, 64, 64), 1.0)


def main() -> None:
    for name, make in (("prior 256 x 6, 289 positions, batch 32", prior), ("dvae 64 px, batch 32", dvae)):
        seconds = {}
        for way, (precision, compiled) in WAYS.items():
            torch.manual_seed(0)
            model, inputs = make()
            engine = SingleEngine(MachineConfig(precision=precision, compile=compiled))
            trainee = engine.add(model, optimizer_of(OptimConfig()), clip=1.0)

            def step(engine=engine, trainee=trainee, inputs=inputs) -> None:
                with engine.autocast():
                    total = trainee.model(*inputs)[0]
                trainee.backward(total)
                engine.step({"model": 1e-3})

            began = time.perf_counter()
            step()
            first = time.perf_counter() - began
            seconds[way], spread = median_of(step, 5)
            ratio = seconds["float32"] / seconds[way]
            row(
                "precision", what=name, way=way, seconds=seconds[way], spread=spread, first_step_s=first, speed_up=ratio
            )


if __name__ == "__main__":
    main()
