"""Tessera at the 2021 notebook's configuration, and with a native prior of the same width, depth, heads and codes: it
answers what `against.py` asks."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import torch

from common import answer
from tessera.config import MachineConfig, SampleConfig, TextToImageConfig, TransformerConfig
from tessera.config.presets import preset
from tessera.generate import raster
from tessera.generate.weights import compiled, prepare
from tessera.machine import memory
from tessera.models.dvae import DiscreteVAE
from tessera.models.text_to_image import TextToImage
from tessera.tokens.image import Frozen
from tessera.train import plan
from tessera.train.engines.single import SingleEngine
from tessera.train.optim import optimizer_of

NOTEBOOK = preset("t2i-dalle1-256")
NATIVE = preset("t2i-m-256")


def notebook(**changes: Any) -> TextToImageConfig:
    transformer = dataclasses.replace(NOTEBOOK.model.transformer, **changes)
    return dataclasses.replace(NOTEBOOK.model, text_vocab=49408, image_vocab=8192, grid=32, transformer=transformer)


def native(words: int = 16, vocab: int = 4096) -> TextToImageConfig:
    return TextToImageConfig(
        text_vocab=vocab, text_len=words, image_vocab=8192, grid=32,
        transformer=TransformerConfig(dim=512, depth=2, heads=4),
    )  # fmt: skip


def main() -> None:
    state: dict[str, Any] = {}
    network = DiscreteVAE(preset("dvae-dalle1-256").model).eval().requires_grad_(False)
    tokenizer = Frozen(network.to(memory_format=torch.channels_last))  # as tokens.image.load gives it

    def train(kind: str, batch: int, words: int, precision: str, compile: str, recompute: str) -> None:
        base, model = (NOTEBOOK, notebook()) if kind == "notebook" else (NATIVE, native(words))
        optim = dataclasses.replace(base.optim, batch=batch)
        machine = MachineConfig(precision=precision, compile=compile, recompute=recompute)  # type: ignore[arg-type]
        config = dataclasses.replace(base, model=model, optim=optim, machine=machine)
        torch.manual_seed(0)
        engine = SingleEngine(config.machine)
        config, expected = plan.settle(config, engine.device, memory.free_memory(engine.device))
        trainee = engine.add(TextToImage(model), optimizer_of(config.optim), clip=0.5)
        tokenizer.to(engine.device)
        padding = trainee.bare.null_caption(torch.zeros(batch, model.text_len, dtype=torch.long))
        drawn = torch.randint(1, model.text_vocab, (batch, model.text_len))
        tokens = torch.where(torch.arange(model.text_len) < words, drawn, padding)
        state.update(engine=engine, trainee=trainee, tokens=tokens.to(engine.device), expected=expected.total)
        state["pictures"] = torch.rand(batch, 3, 256, 256, device=engine.device)
        state["codes"] = tokenizer.encode(state["pictures"])

    def step(pictures: bool) -> float:
        engine, trainee = state["engine"], state["trainee"]
        codes = tokenizer.encode(state["pictures"]) if pictures else state["codes"]
        with engine.autocast():
            loss = trainee.model(state["tokens"], codes).total
        trainee.backward(loss)
        engine.step({"model": 3e-4})
        return loss.item()

    def held() -> dict[str, int]:
        count = sum(p.numel() for p in state["trainee"].bare.parameters()) * 4
        return {"weights": count, "gradients": count, "optimizer": 2 * count}

    def load(kind: str, weights: str, compile: bool) -> None:
        torch.manual_seed(0)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = TextToImage(notebook() if kind == "notebook" else native()).eval().to(device)
        tokenizer.to(torch.device(device))
        prepare(model, weights, compile)
        state.update(model=model, decode=compiled(model) if compile else None)
        state["text"] = torch.randint(1, 4096, (1, model.config.text_len), device=device)

    def draw(batch: int = 1, guidance: float = 1.0) -> float:
        config = SampleConfig(top_k=0.1, guidance=guidance)
        codes = raster.codes(
            state["model"], state["text"].expand(batch, -1), range(batch), config, decode=state["decode"]
        )
        return float(tokenizer.decode(codes.clone()).mean())

    answer({"train": train, "step": step, "held": held, "load": load, "draw": draw})


if __name__ == "__main__":
    sys.argv = sys.argv[:1]
    main()
