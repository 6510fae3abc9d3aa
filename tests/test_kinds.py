"""A new kind of model: one line in one table on each floor, and everything that trains, saves and reports takes it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import tessera
from tessera.config import MODELS, DataConfig, MachineConfig, NetworkConfig, OptimConfig, TrainConfig
from tessera.data.batches import NoCaptions
from tessera.evaluate.report import UNITS
from tessera.evaluate.subject import Subject
from tessera.journeys.preview import PREVIEWS
from tessera.models import saved
from tessera.models.saved import NETWORKS
from tessera.train.objectives.protocol import Objective, floats
from tessera.train.objectives.table import OBJECTIVES


def test_the_tables_of_all_floors_have_the_same_names():
    assert MODELS.keys() == OBJECTIVES.keys() == PREVIEWS.keys() == UNITS.keys()
    assert MODELS.keys() <= NETWORKS.keys(), "networks also holds those that are imported and never trained"


@dataclass(frozen=True, kw_only=True)
class MeanConfig(NetworkConfig):
    """A network that knows one colour."""

    pixels: int = 16


class Mean(nn.Module):
    splits = True

    def __init__(self, config: MeanConfig):
        super().__init__()
        self.config, self.colour = config, nn.Parameter(torch.zeros(3))

    @staticmethod
    def inputs(config: MeanConfig, rows: int) -> tuple[torch.Tensor]:
        return (torch.zeros(rows, 3, config.pixels, config.pixels),)

    def forward(self, pixels):
        return ((pixels - self.colour[:, None, None]).square().mean(),)


class LearnMean(Objective):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.model = Mean(config.model)
        self.source, self.held_source = self.pictures([NoCaptions(), NoCaptions()], config.model.pixels, 3)

    @classmethod
    def prepare(cls, config, data, tokenizers):
        return cls(config, data)

    def losses(self, models, batch, done):
        loss = models["model"](floats(batch.pixels))[0]
        return {"model": loss}, {"colour": loss.detach()}

    def held_losses(self, models, batch):
        return {"loss": models["model"](floats(batch.pixels))[0]}

    def save(self, folder, weights):
        saved.write(folder, self.model, weights)


@pytest.fixture
def mean(monkeypatch):
    monkeypatch.setitem(MODELS, "mean", MeanConfig)
    monkeypatch.setitem(NETWORKS, "mean", (MeanConfig, Mean))
    monkeypatch.setitem(OBJECTIVES, "mean", LearnMean)
    monkeypatch.setitem(PREVIEWS, "mean", lambda objective, path: "")
    monkeypatch.setitem(UNITS, "mean", "squared error")


def test_a_new_kind_of_model_is_trained_saved_resumed_and_reported(mean, bird_folder, tmp_path):
    config = TrainConfig(
        out=str(tmp_path / "run"), steps=3, model=MeanConfig(), machine=MachineConfig(device="cpu"), valid_every=2,
        data=DataConfig(path=str(bird_folder), holdout=0.2, workers=0), optim=OptimConfig(batch=8, lr=0.1, warmup=0),
    )  # fmt: skip
    said: list[str] = []
    run = tessera.train(config, say=said.append)
    assert run.config().model == MeanConfig()
    assert "squared error" in (run.folder / "figures.json").read_text()
    assert any("3 parameters" in line for line in said)
    tessera.train(TrainConfig(**{**vars(config), "steps": 6}))
    assert [p.name for p in run.checkpoints()][-1] == "step-000006"
    subject = Subject.load(run.folder, device="cpu")
    assert isinstance(subject.model, Mean)
    assert subject.model.colour.abs().sum() > 0
    assert len(subject.held) + len(subject.learned) == 40
