"""What one GPU gives: memory at the notebook's configuration, and a model of 300 M parameters against the rates of the
card's own matrices and memory. `bench/against.py` has the original's turns, there as here.

python bench/gpu.py [--small]      small: little models, only to see that it runs
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from typing import Any

import torch

from common import median_of, row
from ours import native, notebook
from tessera.config import MachineConfig, SampleConfig, TextToImageConfig, TransformerConfig
from tessera.config.presets import preset
from tessera.generate import raster
from tessera.generate.weights import compiled, prepare
from tessera.machine.device import choose_device
from tessera.machine.memory import free_memory
from tessera.models.text_to_image import TextToImage
from tessera.train import plan
from tessera.train.engines.single import SingleEngine
from tessera.train.optim import optimizer_of
from tessera.train.work import matrix_rate, training_flops

DEVICE = choose_device("auto")
LARGE = TextToImageConfig(
    text_vocab=16384, text_len=64, image_vocab=8192, grid=32,
    transformer=TransformerConfig(dim=1024, depth=24, heads=16),
)  # fmt: skip


def started(name: str, model: TextToImageConfig, batch: int, compile: str) -> SingleEngine:
    base = preset(name)
    machine = MachineConfig(precision="bf16", compile=compile)  # type: ignore[arg-type]
    config = dataclasses.replace(base, model=model, machine=machine, optim=dataclasses.replace(base.optim, batch=batch))
    engine = SingleEngine(machine)
    plan.settle(config, engine.device, free_memory(engine.device))
    engine.add(TextToImage(model), optimizer_of(config.optim), clip=1.0)
    return engine


def inputs(model: TextToImageConfig, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(1, model.text_vocab, (batch, model.text_len), device=DEVICE)
    return tokens, torch.randint(0, model.image_vocab, (batch, model.grid**2), device=DEVICE)


def step(engine: SingleEngine, *given: torch.Tensor) -> float:
    trainee = engine.trainees["model"]
    with engine.autocast():
        loss = trainee.model(*given).total
    trainee.backward(loss)
    engine.step({"model": 1e-4})
    return loss.item()


def memory(model: TextToImageConfig, batch: int, limit: float) -> None:
    """Training and a picture drawn in the middle of it."""
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    engine, given = started("t2i-dalle1-256", model, batch, "off"), inputs(model, batch)
    for _ in range(3):
        step(engine, *given)
    prior: Any = engine.trainees["model"].bare.eval()
    raster.codes(prior, given[0][:1], [0], SampleConfig(top_k=0.1))
    prior.train()
    step(engine, *given)
    peak = torch.cuda.max_memory_reserved() if DEVICE.type == "cuda" else 0
    row("gpu-memory", configuration=f"notebook's configuration, batch {batch}, drawing included",
        measured_gb=peak / 1e9, limit_gb=limit, ratio=peak / 1e9 / limit)  # fmt: skip


def training(model: TextToImageConfig, batches: tuple[int, ...]) -> None:
    """The share of the card's own rate of matrix products that useful arithmetic reaches, by batch."""
    for batch in batches:
        engine, given = started("t2i-l-256", model, batch, "auto"), inputs(model, batch)
        prior = engine.trainees["model"].bare
        rates, seconds = [], []
        for turn in range(7):
            rates.append(matrix_rate(engine))
            began = time.perf_counter()
            step(engine, *given)
            seconds.append(time.perf_counter() - began)
            if turn == 1:  # compiled by now
                rates, seconds = [], []
        taken, rate = statistics.median(seconds), statistics.median(rates)
        row("gpu-training", configuration=f"{parameters(prior) / 1e6:.0f} M parameters, batch {batch}",
            seconds=taken, spread=max(seconds) - min(seconds), pictures_per_second=batch / taken,
            alternative="matrix products alone", ratio=batch * training_flops(prior) / taken / rate)  # fmt: skip
        del engine, prior


@torch.inference_mode()
def drawing(model: TextToImageConfig) -> None:
    """The share of the card's own memory bandwidth with which weights and what is remembered are read, at batch 1."""
    block = torch.zeros(2**28 if DEVICE.type == "cuda" else 2**24, dtype=torch.bfloat16, device=DEVICE)
    for kind in ("bf16", "int8"):
        prior = TextToImage(model).eval().to(DEVICE)
        layers = parameters(prior.transformer) + prior.image_head.weight.numel()
        remembered = 2 * model.transformer.depth * model.transformer.heads * model.transformer.head_dim * 4
        decode = compiled(prepare(prior, kind, compile=True))  # type: ignore[arg-type]
        tokens = inputs(model, 1)[0]
        draw: Any = lambda p=prior, t=tokens, d=decode: raster.codes(p, t, [0], SampleConfig(), decode=d).sum().item()
        seconds, spread = median_of(draw, times=5, warm=2)
        copy, _ = median_of(lambda: block.add_(1)[0].item())
        rate = 2 * block.numel() * block.itemsize / copy
        past = remembered * prior.layout.length
        taken = seconds / model.grid**2
        row("gpu-drawing", configuration=f"{kind}, batch 1, {layers / 1e6:.0f} M parameters read a code",
            seconds=seconds, spread=spread, alternative="memory bandwidth",
            ratio=(layers * {"bf16": 2, "int8": 1}[kind] + past) / taken / rate)  # fmt: skip


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    if parser.parse_args().small:
        little = dataclasses.replace(native(), grid=8, transformer=TransformerConfig(dim=128, depth=2, heads=2))
        memory(little, 2, 2.0)
        training(little, (2,))
        drawing(little)
    else:
        memory(notebook(), 4, 2.0)
        memory(notebook(), 64, 10.76)
        training(LARGE, (8, 16, 32, 64))
        drawing(LARGE)
