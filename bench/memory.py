"""How near is the plan to the measured peak of two steps? Ten configurations, each in a process of its own."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import torch

from common import Rival, answer, row
from ours import native, notebook
from tessera.config import CLIPConfig, MachineConfig, TrainConfig
from tessera.config.presets import preset
from tessera.machine.device import return_freed_memory
from tessera.models import saved
from tessera.train import plan
from tessera.train.engines.single import SingleEngine
from tessera.train.optim import optimizer_of


def of(name: str, model: Any, batch: int, precision: str = "float32", recompute: str = "auto") -> TrainConfig:
    base = preset(name)
    machine = MachineConfig(device="cpu", precision=precision, recompute=recompute, compile="off")  # type: ignore[arg-type]
    return dataclasses.replace(base, model=model, machine=machine, optim=dataclasses.replace(base.optim, batch=batch))


CLIP = CLIPConfig(text_vocab=4096, text_len=64, dim_text=256, dim_image=256)
CASES = {
    "notebook": of("t2i-dalle1-256", notebook(), 4),
    "notebook, activations kept": of("t2i-dalle1-256", notebook(), 4, recompute="off"),
    "notebook, bf16": of("t2i-dalle1-256", notebook(), 4, "bf16"),
    "notebook, depth 16": of("t2i-dalle1-256", notebook(depth=16), 4),
    "notebook, depth 16, not reversible": of("t2i-dalle1-256", notebook(depth=16, reversible=False), 2),
    "native, batch 8": of("t2i-m-256", native(), 8),
    "native, bf16, batch 8": of("t2i-m-256", native(), 8, "bf16"),
    "native, recomputed, batch 16": of("t2i-m-256", native(), 16, recompute="on"),
    "image tokenizer dvae-s-128, batch 32": of("dvae-s-128", preset("dvae-s-128").model, 32),
    "clip, batch 128": of("clip-s-64", CLIP, 128),
}


def measure(case: str) -> float:
    return_freed_memory()
    config = CASES[case]
    engine = SingleEngine(config.machine)
    trainee = engine.add(saved.network(config.model), optimizer_of(config.optim), clip=1.0)
    inputs = saved.inputs(config.model, config.optim.batch)
    for _ in range(2):
        with engine.autocast():
            loss = trainee.model(*inputs)[0]
        trainee.backward(loss)
        engine.step({"model": 1e-4})
        del loss
    return plan.predict(config, config.optim.batch).total


def warm() -> None:
    """Let the libraries make their own buffers."""
    return_freed_memory()
    engine = SingleEngine(MachineConfig(device="cpu", precision="bf16", compile="off"))
    small = dataclasses.replace(native(), grid=4, transformer=dataclasses.replace(native().transformer, depth=1))
    trainee = engine.add(saved.network(small), optimizer_of(preset("t2i-m-256").optim), clip=1.0)
    with engine.autocast():
        loss = trainee.model(*saved.inputs(small, 1))[0]
    trainee.backward(loss)
    engine.step({"model": 1e-4})
    plan.predict(of("t2i-m-256", small, 1), 1)
    torch.nn.functional.conv2d(torch.zeros(1, 3, 64, 64), torch.zeros(8, 3, 3, 3))


def main() -> None:
    for case in CASES:
        rival = Rival("memory.py", "answer")
        rival("warm")
        told = rival("measure", case=case)
        rival.close()
        row("memory", configuration=case, expected_gb=told["value"] / 1e9, measured_gb=told["growth"] / 1e9,
            ratio=told["value"] / told["growth"])  # fmt: skip


if __name__ == "__main__":
    answer({"warm": warm, "measure": measure}) if "answer" in sys.argv else main()
