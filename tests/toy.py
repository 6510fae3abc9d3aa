"""An objective with two networks and two optimisers: a painter that copies pictures, and a critic that tells copies.

Called in processes of their own (`Ranks`), because it adds a kind of model to the tables of the house.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tessera.config import MODELS, DataConfig, MachineConfig, NetworkConfig, OptimConfig, TrainConfig
from tessera.data.batches import NoCaptions
from tessera.models import saved
from tessera.models.critic import Through
from tessera.models.saved import NETWORKS
from tessera.store.run import Run
from tessera.train import job
from tessera.train.engines import table as engines
from tessera.train.look import within
from tessera.train.loop import forward_backward
from tessera.train.objectives.protocol import Objective, floats
from tessera.train.objectives.table import OBJECTIVES
from tessera.train.optim import optimizer_of


@dataclass(frozen=True, kw_only=True)
class PainterConfig(NetworkConfig):
    """A network of two convolutions."""

    pixels: int = 16


class Painter(nn.Module):
    splits = True

    def __init__(self, config: PainterConfig):
        super().__init__()
        self.config = config
        self.net = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.GELU(), nn.Conv2d(7, 3, 3, padding=1))

    @staticmethod
    def inputs(config: PainterConfig, rows: int) -> tuple[Tensor]:
        return (torch.zeros(rows, 3, config.pixels, config.pixels),)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        copy = self.net(pixels)
        return (copy - pixels).square().mean(), copy


class Critic(nn.Sequential):
    """[B, 3, 16, 16] -> a score for each picture."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 5, 4, stride=4), nn.GELU(), nn.Flatten(), nn.Linear(5 * 16, 1))


class LearnPainter(Objective):
    """The critic's loss is a hinge, whose gradient reaches the critic alone; the painter is told its score."""

    spoil = False
    """Whether the critic's loss is not a number on the last rank."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.model, self.critic = Painter(config.model), Critic()
        self.source, self.held_source = self.pictures([NoCaptions(), NoCaptions()], config.model.pixels, 3)

    @classmethod
    def prepare(cls, config, data, tokenizers):
        return cls(config, data)

    @property
    def networks(self):
        return {"model": self.model, "critic": self.critic}

    def optim(self, name):
        own = self.config.optim
        return own if name == "model" else dataclasses.replace(own, name="adam", lr=2e-3, clip=0.1, ema=0.0)

    def losses(self, models, batch, done):
        pixels = floats(batch.pixels)
        error, copy = models["model"](pixels)
        real, fake = models["critic"](torch.cat((pixels, copy.detach()))).chunk(2)
        hinge = (1 - real).relu().mean() + (1 + fake).relu().mean()
        score = Through.apply(self.critic, copy).mean()
        return {"model": error - 0.1 * score, "critic": hinge * (torch.nan if self.spoil else 1.0)}, {"error": error}

    def held_losses(self, models, batch):
        return {"loss": models["model"](floats(batch.pixels))[0]}

    def save(self, folder, weights):
        saved.write(folder, self.model, weights)


def register() -> None:
    MODELS["painter"] = PainterConfig
    NETWORKS["painter"] = (PainterConfig, Painter)
    OBJECTIVES["painter"] = LearnPainter


def config(pictures: str, out: str, engine: str, zero: int, steps: int, accumulate: int = 1) -> TrainConfig:
    register()
    machine = MachineConfig(device="cpu", precision="float32", engine=engine, zero=zero)
    optim = OptimConfig(batch=8, warmup=2, lr=5e-3, schedule="constant", ema=0.9, accumulate=accumulate)
    return TrainConfig(
        out=out, steps=steps, model=PainterConfig(), machine=machine, optim=optim, save_every=1, keep=20, valid_every=3,
        preview_every=0, log_every=1, data=DataConfig(path=pictures, holdout=0.2, workers=0),
    )  # fmt: skip


def run(*settings) -> None:
    """Train, or go on."""
    job.train(config(*settings))


def spoiled(*settings) -> None:
    """A critic's loss that is not a number on one rank stops both networks, and leaves nothing behind it."""
    asked = config(*settings)
    engine = engines.choose(asked)
    objective = job.build(dataclasses.replace(asked, out=f"{asked.out}-{engine.rank}"))
    for name, network in objective.networks.items():
        optim = objective.optim(name)
        engine.add(network, optimizer_of(optim), optim.clip, optim.ema, name)
    batches, rates = objective.batches(0, engine.rank, engine.world), {"model": 1e-2, "critic": 1e-2}

    def weights() -> list[Tensor]:
        found = []
        for around in (nullcontext(), within(trainee.averaged() for trainee in engine.trainees.values())):
            with around:
                found += [w.clone() for trainee in engine.trainees.values() for w in trainee.weights().values()]
        return found

    def step(spoil: bool) -> list[float]:
        objective.spoil = spoil and engine.rank == engine.world - 1
        forward_backward(objective, engine, next(batches), asked.optim.accumulate, 0.0)
        return [float(norm) for norm in engine.step(rates).values()]

    step(False)
    before = weights()
    painter, critic = step(True)
    assert painter > 0, "the painter's gradient is good"
    assert not torch.tensor(critic).isfinite()
    assert all(torch.equal(a, b) for a, b in zip(before, weights(), strict=True)), "no network and no mean moved"
    norms = step(False)
    assert all(torch.tensor(norms).isfinite())
    moved = [not torch.equal(a, b) for a, b in zip(before, weights(), strict=True)]
    assert sum(moved) >= 0.75 * len(moved), "a bias may stand still"
    engine.close()


def final(out: str) -> Path:
    latest = Run(out).latest()
    assert latest is not None
    return latest
