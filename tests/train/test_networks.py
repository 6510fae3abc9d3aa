"""Several networks with an optimiser each, and the mean of the weights, under every engine."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest
import torch
from safetensors.torch import load_file

import toy
from ranks import Ranks
from small_runs import dvae_config, go
from tessera.config import OptimConfig
from tessera.models import saved
from tessera.store.run import Run
from tessera.store.state import read_state
from tessera.train.job import build
from tessera.train.optim import Average
from tessera.train.sharded import read_optimizer

needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
ENGINES = {
    "single": (0, "single", 0),
    "ddp": (2, "ddp", 0),
    "fsdp": (2, "fsdp", 0),
    **{f"zero{stage}": (2, "deepspeed", stage) for stage in range(4)},
}
EVERY = [pytest.param(name, marks=[needs_deepspeed] if "zero" in name else []) for name in ENGINES]


@pytest.fixture(scope="module")
def painted(ranks, bird_folder, tmp_path_factory):
    """The toy trained for six steps under an engine, each step saved; made once."""
    made: dict[str, Run] = {}

    def under(name: str) -> Run:
        if name not in made:
            made[name] = Run(tmp_path_factory.mktemp(name) / "run")
            call(ranks, name, "run", str(bird_folder), made[name], 6)
        return made[name]

    return under


def call(ranks: Ranks, name: str, function: str, pictures: str, run: Run, steps: int, accumulate: int = 1) -> None:
    processes, engine, zero = ENGINES[name]
    arguments = (pictures, str(run.folder), engine, zero, steps, accumulate)
    ranks.run(processes, f"import toy; toy.{function}(*{arguments})")


def rows(run: Run, name: str) -> list[float]:
    return [row[name] for row in run.read_metrics() if name in row]


def everything(run: Run) -> dict[str, torch.Tensor]:
    """All that the newest checkpoint holds of both networks, by name."""
    folder = toy.final(str(run.folder))
    found = {f"mean {n}": v for n, v in load_file(folder / "weights.safetensors").items()}
    for home in ("", "networks/critic"):
        found |= {f"{home} {n}": v for n, v in read_state(folder / home / "weights")["weights"].items()}
        for name, memory in read_optimizer(folder / home / "optimizer")["moments"].items():
            found |= {f"{home} {name} {kind}": v for kind, v in memory.items()}
    return found


@pytest.mark.parametrize("name", EVERY)
def test_a_loss_that_is_not_a_number_stops_every_network(ranks, bird_folder, tmp_path, name):
    for accumulate in (1, 2):
        call(ranks, name, "spoiled", str(bird_folder), Run(tmp_path / str(accumulate)), 6, accumulate)


@pytest.mark.parametrize("name", EVERY[1:])
def test_two_networks_learn_the_same_under_every_engine(painted, name):
    for number in ("loss", "model", "critic", "held_loss", "norm"):
        assert rows(painted(name), number) == pytest.approx(rows(painted("single"), number), abs=1e-5), number
    found, wanted = everything(painted(name)), everything(painted("single"))
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key].reshape(value.shape), value, atol=1e-4, rtol=1e-3, msg=key)


@pytest.mark.parametrize("name", EVERY)
def test_two_networks_go_on_to_the_last_bit(ranks, painted, bird_folder, tmp_path, name):
    parts = Run(tmp_path / "parts")
    for steps in (3, 6):
        call(ranks, name, "run", str(bird_folder), parts, steps)
    found, wanted = everything(parts), everything(painted(name))
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key
    assert rows(parts, "loss") == rows(painted(name), "loss")


@pytest.mark.parametrize("name", EVERY)
def test_the_mean_of_the_weights_is_the_spelled_out_recursion(painted, name):
    checkpoints = painted(name).checkpoints()
    mean = load_file(checkpoints[0] / "weights.safetensors")
    assert len(checkpoints) == 7
    for step, checkpoint in enumerate(checkpoints[1:], 1):
        decay = min(0.9, (1 + step) / (10 + step))
        raw = read_state(checkpoint / "weights")["weights"]
        mean = {n: decay * m + (1 - decay) * raw[n].reshape(m.shape) for n, m in mean.items()}
        found = load_file(checkpoint / "weights.safetensors")
        for n, value in mean.items():
            torch.testing.assert_close(found[n], value, atol=1e-6, rtol=0)
            assert not torch.equal(found[n], raw[n].reshape(value.shape))


def test_held_out_losses_and_previews_are_those_of_the_mean(bird_folder, tmp_path):
    config = dvae_config(bird_folder, tmp_path, steps=4, valid_every=4, preview_every=4)
    config = dataclasses.replace(config, optim=OptimConfig(batch=4, warmup=0, ema=0.9))
    seen = {}

    def look(objective, path):
        seen.update({n: v.clone() for n, v in objective.model.state_dict().items()})
        return ""

    run, _ = go(config, look)
    drawn, objective = saved.read(run.best()), build(config)
    for name, value in drawn.state_dict().items():
        assert torch.equal(seen[name], value), name
    objective.model = drawn
    with torch.no_grad():
        held = [(objective.held_losses({"model": drawn}, batch)["loss"] * len(batch.pixels), len(batch.pixels))
                for batch, _ in objective.held_batches()]  # fmt: skip
    wanted = float(sum(loss for loss, _ in held)) / sum(count for _, count in held)
    assert rows(run, "held_loss") == pytest.approx([wanted], abs=1e-6)


def test_without_a_decay_nothing_is_kept():
    weights = [torch.ones(3)]
    off = Average(weights, 0.0)
    off.update()
    with off.swapped(lambda: pytest.fail("nothing to follow")):
        assert torch.equal(weights[0], torch.ones(3))
    assert not off.values


def test_weights_and_their_mean_change_places_and_back():
    weight = torch.nn.Parameter(torch.tensor([4.0]))
    average = Average([weight], 0.999)
    with torch.no_grad():
        weight.fill_(1.0)
    average.update()
    assert average.values[0].item() == pytest.approx(2 / 11 * 4 + 9 / 11 * 1)
    before = average.values[0].clone()
    followed = []
    with average.swapped(lambda: followed.append(weight.item())):
        assert torch.equal(weight.detach(), before)
        assert average.values[0].item() == 1.0
    assert followed == [before.item(), 1.0]
    assert weight.item() == 1.0
    assert torch.equal(average.values[0], before)
