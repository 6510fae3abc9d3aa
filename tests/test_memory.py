"""What a run will need is known before it, and where memory runs out nevertheless it goes on in smaller parts."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import MODERN, prior
from tessera.cli import main
from tessera.config import CLIPConfig, MachineConfig, SampleConfig, TrainConfig
from tessera.config.presets import preset
from tessera.generate.pipeline import Pipeline, Request
from tessera.generate.raster import RasterDecoder
from tessera.machine import memory
from tessera.machine.device import out_of_memory
from tessera.store.run import Run
from tessera.train import plan


def t2i(batch: int = 8, depth: int = 2, recompute: str = "auto", engine: str = "auto", **machine) -> TrainConfig:
    config = preset("t2i-s-64")
    transformer = dataclasses.replace(config.model.transformer, depth=depth)
    model = dataclasses.replace(
        config.model, text_vocab=300, text_len=24, image_vocab=500, grid=8, transformer=transformer
    )
    machine = MachineConfig(device="cpu", precision="float32", recompute=recompute, engine=engine, **machine)
    return dataclasses.replace(
        config, model=model, machine=machine, optim=dataclasses.replace(config.optim, batch=batch)
    )


MEASURE = """
import sys, ctypes
ctypes.CDLL(None).mallopt(-3, 65536)  # every array gets pages of its own, which go when it goes
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import torch
from common import peak, restart_peak
from test_memory import CASES, plan
from tessera.models import saved
from tessera.train.engines.single import Single
from tessera.train.optim import optimizer_of
torch.set_num_threads(1)
config = CASES[sys.argv[3]]
engine = Single(config.machine)
def steps(model, inputs):
    engine.prepare(model, optimizer_of(config.optim))
    for _ in range(2):
        with engine.micro(last=True):
            loss = engine.model(*inputs)[0]
        engine.backward(loss)
        engine.step(1.0, 1e-4)
        del loss
small = plan.dataclasses.replace(config.model, **({"text_len": 8} if hasattr(config.model, "text_len") else {"hidden": 8}))
steps(saved.network(small), saved.inputs(small, 1))  # the libraries make their own buffers
del engine.model, engine.bare, engine.optimizer
before = restart_peak()
steps(saved.network(config.model), saved.inputs(config.model, config.optim.batch))
print(peak() - before)
"""

CASES = {
    "residual": t2i(24),
    "deeper": t2i(8, depth=8),
    "recomputed": t2i(32, depth=8, recompute="on"),
    "classic": dataclasses.replace(
        t2i(4),
        model=dataclasses.replace(
            preset("t2i-dalle1-256").model, text_vocab=3000, text_len=64, image_vocab=2000, grid=16
        ),
    ),
    "dvae": dataclasses.replace(
        preset("dvae-s-64"),
        machine=MachineConfig(device="cpu", precision="float32"),
        optim=dataclasses.replace(preset("dvae-s-64").optim, batch=16),
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_within_a_tenth_of_the_peak(name):
    config = CASES[name]
    root = Path(__file__).parent
    arguments = [str(root.parent / "bench"), str(root), name]
    done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found, measured = plan.predict(config, config.optim.batch).total, float(done.stdout)
    assert abs(found / measured - 1) < 0.1, f"{plan.size(found)} expected, {plan.size(measured)} measured"


def test_a_plan_splits_the_batch_until_it_fits():
    config = t2i(32, depth=1)
    whole = plan.predict(config, 32)
    for free in (whole.total * 2, whole.total * 0.6, whole.total * 0.3, 1.0):
        found, parts = plan.fit(config, free)
        assert found.micro * parts == 32
        assert found.total <= plan.SAFE * free or found.micro == 1
    assert plan.fit(config, whole.total * 2)[1] == 1
    assert plan.fit(config, 1.0)[1] == 32


def test_the_batch_of_each_of_several_ranks_is_split(monkeypatch):
    monkeypatch.setattr(plan, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(plan, "return_freed_memory", lambda: None)
    config = t2i(32, depth=1)
    config = dataclasses.replace(config, machine=dataclasses.replace(config.machine, engine="ddp"))
    whole = plan.predict(config, 16, 2)
    cpu = torch.device("cpu")
    assert plan.settle(config, cpu, 2 * whole.total, 2)[0].optim.accumulate == 1
    split, found = plan.settle(config, cpu, 0.6 * whole.total, 2)
    assert split.optim.accumulate * found.micro == 16
    assert found.micro < 16


def test_ranks_on_one_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(memory, "_meminfo", lambda: 8e9)
    monkeypatch.setattr(memory, "_container", lambda: [])
    monkeypatch.setattr(memory, "_limits", lambda: [])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.free_memory(torch.device("cpu")) == 2e9


def test_memory_grows_in_a_straight_line_with_the_pictures():
    config = t2i(64)
    guess = plan.scaled(config)(64)
    assert abs(guess.total / plan.predict(config, 64).total - 1) < 0.05


def test_engines_share_what_they_say_they_share():
    held = plan.held_bytes(t2i().model)
    single = plan.predict(t2i(), 8, 4)
    assert (single.weights, single.optimizer) == (held, 2 * held)
    cut = {
        "fsdp": (0.25, 0.25, 0.5),
        "deepspeed": (1.0, 0.25, 0.5),  # ZeRO 2 is the default
    }
    for engine, shares in cut.items():
        found = plan.predict(t2i(engine=engine), 8, 4)
        assert (found.weights / held, found.gradients / held, found.optimizer / held) == shares
    assert plan.predict(t2i(engine="deepspeed", zero=3, offload="optimizer"), 8, 4).optimizer == 0
    assert plan.predict(t2i(engine="ddp"), 8, 4).working > plan.predict(t2i(), 8, 1).working


def test_reversible_depth_costs_no_activations():
    def working(depth: int, **changes: object) -> float:
        model = preset("t2i-dalle1-256").model
        transformer = dataclasses.replace(model.transformer, depth=depth, **changes)
        model = dataclasses.replace(
            model, text_vocab=2000, text_len=64, image_vocab=1000, grid=16, transformer=transformer
        )
        return plan.predict(dataclasses.replace(t2i(), model=model), 4).working

    assert working(8) < 1.01 * working(2)
    assert working(8, reversible=False) > 3 * working(2, reversible=False)


def test_other_models_have_plans_too():
    clip = dataclasses.replace(t2i(), model=CLIPConfig(text_vocab=300, text_len=16))
    assert plan.predict(clip, 8).total > 4 * plan.held_bytes(clip.model)
    assert len(list(plan.table(clip))) == 1 + len(plan.CARDS)


LIMITED = """
import json, resource, sys
import torch
torch.set_num_threads(1)
from tessera.cli import main
from tessera.train import loop, plan
plan.keep_freed_memory = plan.return_freed_memory  # as it would have been, had the plan seen the limit
work, megabytes = loop.train, float(sys.argv[1])

def limited(*args):
    data = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
    if megabytes:
        resource.setrlimit(resource.RLIMIT_DATA, (int(data + megabytes * 1e6), resource.RLIM_INFINITY))
    done = work(*args)
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return done

loop.train = limited
main(json.loads(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA")
def test_a_run_that_runs_out_of_memory_ends_with_the_losses_of_one_that_does_not(bird_folder, tmp_path):
    import json

    small = ["--model.pixels", "32", "--model.layers", "2", "--model.hidden", "8", "--data.workers", "0"]
    quiet = ["--preview-every", "0", "--valid-every", "0", "--log-every", "1", "--machine.precision", "float32"]
    vae = ["train", "dvae-xs-64", "--data.path", str(bird_folder), "--steps", "1", *small, *quiet]

    def run(name: str, megabytes: int, args: list[str]) -> tuple[list[float], str]:
        args = [*args, "--out", str(tmp_path / name)]
        command = [sys.executable, "-W", "always", "-c", LIMITED, str(megabytes), json.dumps(args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return [r["loss"] for r in Run(tmp_path / name).read_metrics() if "loss" in r], done.stderr

    main([*vae, "--out", str(tmp_path / "vae")])
    train = ["train", "t2i-s-64", "--data.path", str(bird_folder), "--tokens.image", str(tmp_path / "vae"),
             "--steps", "3", "--optim.batch", "32", "--model.transformer.depth", "2", "--data.workers", "0", "--data.crop", "1", *quiet]  # fmt: skip
    wanted, warned = run("large", 0, train)
    assert "Memory ran out" not in warned
    found, warned = run("small", 185, train)
    assert warned.count("Memory ran out with 1 micro-batches") == 1
    assert len(found) == len(wanted) == 3
    assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 1e-4


class Tiny:
    """A tokenizer of pictures of one pixel a code."""

    grid, vocab = 4, 11

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return (codes / 10).reshape(-1, 1, 4, 4).expand(-1, 3, -1, -1)


class Words:
    def encode(self, text: str) -> list[int]:
        return [3, 4]


def test_drawing_halves_the_batch_that_does_not_fit(monkeypatch):
    pipeline = Pipeline(prior(MODERN), Words(), Tiny())
    wanted = [p.codes for p in pipeline.stream(Request("a bird", count=8))]
    asked, steps = [], RasterDecoder.steps

    def cramped(self, batch):
        asked.append(len(batch.tokens))
        if len(batch.tokens) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return steps(self, batch)

    monkeypatch.setattr(RasterDecoder, "steps", cramped)
    with pytest.warns(UserWarning, match="Memory ran out") as warned:
        found = [p.codes for p in pipeline.stream(Request("a bird", count=8))]
    assert found == wanted
    assert asked == [8, 4, 2, 2, 2, 2]
    assert len(warned) == 2
    assert [p.codes for p in pipeline.stream(Request("a bird", count=4))] == wanted[:4]
    assert asked[6:] == [2, 2], "it remembers"


def test_a_single_picture_that_does_not_fit_is_an_error(monkeypatch):
    pipeline = Pipeline(prior(MODERN), Words(), Tiny())

    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(RasterDecoder, "steps", full)
    with pytest.raises(torch.OutOfMemoryError):
        pipeline.draw(["a bird"], [0], SampleConfig())


def test_only_memory_errors_are_taken_for_one():
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."))
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_unfinished_pictures_come_along_the_way():
    seen: list = []
    pipeline = Pipeline(prior(MODERN), Words(), Tiny())
    (whole,) = pipeline.stream(Request("a bird"), on_partial=seen.extend)
    (half,) = seen
    assert half.seed == whole.seed
    assert half.image.getpixel((0, 3)) == (200, 200, 200)
    assert half.image.crop((0, 0, 4, 2)).tobytes() == whole.image.crop((0, 0, 4, 2)).tobytes()


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit")
def test_free_memory_is_what_ulimit_leaves():
    script = (
        "import resource, torch; from tessera.machine import memory; resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)); "
        "print(memory.free_memory(torch.device('cpu')) < 2**33)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "True\n"
