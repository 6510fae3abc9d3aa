"""Engines of several processes: the same numbers as one process, resuming across engines, and surviving kills."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ranks import ENVIRONMENT, main_with, port
from tessera.cli import REQUEUE, main
from tessera.config import MachineConfig, OptimConfig, TextToImageConfig, TrainConfig, TransformerConfig
from tessera.errors import ConfigError
from tessera.journeys import birds
from tessera.store.run import Run
from tessera.train.engines import deepspeed_settings
from tessera.train.engines import table as engines

needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
ZERO = ["--machine.engine", "deepspeed", "--machine.zero"]
ENGINES = {
    "single": (0, []),
    "ddp": (2, []),
    "fsdp": (2, ["--machine.engine", "fsdp"]),
    "zero0": (2, [*ZERO, "0"]),
    "zero1": (2, [*ZERO, "1"]),
    "zero2": (2, [*ZERO, "2"]),
    "zero3": (2, [*ZERO, "3"]),
    "zero3 alone": (0, [*ZERO, "3"]),
    "zero2 offloaded": (2, [*ZERO, "2", "--machine.offload", "optimizer"]),
    "zero3 offloaded": (2, [*ZERO, "3", "--machine.offload", "parameters"]),
}
REVERSIBLE = ["--model.transformer.reversible", "--model.transformer.shift"]
SHARED = ["--model.tied", "--model.transformer.positions", "axial", "--model.transformer.shared-attn", "a", "a"]


def command(processes: int, *args: str) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", port()]
    return [sys.executable, *(launcher if processes else []), "-m", "tessera", *args]


@pytest.fixture(scope="session")
def ground(tmp_path_factory) -> Path:
    """Pictures and an image tokenizer."""
    root = tmp_path_factory.mktemp("engines")
    birds.draw_folder(root / "birds", 40, pixels=32, seed=1)
    small = ["--model.pixels", "16", "--model.layers", "2", "--model.hidden", "8", "--data.workers", "0"]
    main(["train", "dvae-xs-64", "--data.path", str(root / "birds"), "--out", str(root / "vae"), "--steps", "5",
          "--preview-every", "0", *small])  # fmt: skip
    return root


def arguments(ground: Path, out: Path, steps: int, *more: str) -> list[str]:
    return [
        "train", "t2i-xs-64", "--data.path", str(ground / "birds"), "--tokens.image", str(ground / "vae"), "--out",
        str(out), "--steps", str(steps), "--optim.batch", "8", "--optim.drop-condition", "0", "--optim.warmup", "2",
        "--model.transformer.dim", "32", "--model.transformer.depth", "2", "--model.transformer.heads", "2",
        "--model.transformer.head-dim", "16", "--preview-every", "0", "--valid-every", "5", "--save-every", "5",
        "--log-every", "1", "--data.workers", "0", "--machine.precision", "float32", "--data.crop", "1", *more,
    ]  # fmt: skip


@pytest.fixture(scope="session")
def train(ground, ranks):
    """Train under an engine, in processes that need no time to start."""

    def under(out: Path, engine: str, steps: int, *more: str) -> Run:
        processes, settings = ENGINES[engine]
        ranks.run(processes, main_with(arguments(ground, out, steps, *more, *settings)))
        return Run(out)

    return under


def run(launch: list[str], timeout: int = 300) -> None:
    done = subprocess.run(launch, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[:3000] + done.stderr[-3000:]


def losses(run: Run) -> dict[int, float]:
    return {r["step"]: r["loss"] for r in run.read_metrics() if "loss" in r}


def assert_equal_runs(found: Run, wanted: Run) -> None:
    a, b = losses(found), losses(wanted)
    assert a.keys() == b.keys()
    assert max(abs(a[s] - b[s]) for s in a) < 1e-5
    x, y = (load_file(r.latest() / "weights.safetensors") for r in (found, wanted))
    assert x.keys() == y.keys()
    assert max(float((x[n] - y[n]).abs().max()) for n in x) < 1e-4


@pytest.fixture(scope="session")
def reference(train, tmp_path_factory):
    """One process's run, by settings; made once."""
    made: dict[tuple[str, ...], Run] = {}

    def of(*more: str, steps: int = 10) -> Run:
        key = (*more, str(steps))
        if key not in made:
            made[key] = train(tmp_path_factory.mktemp("reference") / "run", "single", steps, *more)
        return made[key]

    return of


LEAST = """
from tessera.config import MachineConfig
from tessera.train.engines.ddp import DDPEngine
engine = DDPEngine(MachineConfig(device="cpu"))
assert engine.least(5.0 - engine.rank) == 4.0
engine.close()
"""


def test_ranks_agree_on_the_least(ranks):
    ranks.run(2, LEAST)


CASES = [
    ("ddp", [*REVERSIBLE, "--optim.accumulate", "4"]),
    ("ddp", [*SHARED, "--model.transformer.reversible"]),
    ("fsdp", [*REVERSIBLE, "--optim.accumulate", "2"]),
    ("fsdp", SHARED),
]
ZERO_CASES = [
    ("zero1", [*REVERSIBLE, "--optim.accumulate", "4"]),
    ("zero3", REVERSIBLE),
    ("zero3 offloaded", SHARED),
]
EVERY = [
    (engine, [*wiring, "--optim.accumulate", accumulate])
    for engine in list(ENGINES)[1:]
    for wiring in ([], REVERSIBLE)
    for accumulate in ("1", "4")
]


@pytest.mark.parametrize(("engine", "more"), CASES)
def test_two_processes_give_one_processs_numbers(train, reference, tmp_path, engine, more):
    assert_equal_runs(train(tmp_path / "run", engine, 10, *more), reference(*_unaccumulated(more)))


def test_torchrun_gives_one_processs_numbers(ground, reference, tmp_path):
    run(command(2, *arguments(ground, tmp_path / "run", 10)))
    assert_equal_runs(Run(tmp_path / "run"), reference())


def _unaccumulated(more: list[str]) -> list[str]:
    place = more.index("--optim.accumulate") if "--optim.accumulate" in more else len(more)
    return [*more[:place], *more[place + 2 :]]


@needs_deepspeed
@pytest.mark.parametrize(("engine", "more"), ZERO_CASES)
def test_deepspeed_gives_one_processs_numbers(train, reference, tmp_path, engine, more):
    assert_equal_runs(train(tmp_path / "run", engine, 10, *more), reference(*_unaccumulated(more)))


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize(("engine", "more"), EVERY)
def test_every_engine_gives_one_processs_numbers(train, reference, tmp_path, engine, more):
    """20 steps, the same global batch, no dropout."""
    found = train(tmp_path / "run", engine, 20, *more)
    assert_equal_runs(found, reference(*_unaccumulated(more), steps=20))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp", pytest.param("zero3", marks=needs_deepspeed)])
@pytest.mark.parametrize("preset", ["dvae-xs-64", "clip-xs-64"])
def test_the_other_models_train_and_preview_under_every_engine(ranks, ground, tmp_path, preset, engine):
    held = []
    small = ["--model.layers", "2", "--model.hidden", "8"] if preset.startswith("dvae") else []
    for name in ("single", engine):
        processes, settings = ENGINES[name]
        args = ["train", preset, "--data.path", str(ground / "birds"), "--out", str(tmp_path / name), "--steps", "6",
                "--optim.batch", "8", "--valid-every", "3", "--preview-every", "3", "--data.workers", "0",
                "--model.pixels", "16", "--machine.precision", "float32", *small, *settings]  # fmt: skip
        ranks.run(processes, main_with(args))
        held.append([r["held_loss"] for r in Run(tmp_path / name).read_metrics() if "held_loss" in r])
    # A judge's loss is over its own rank's batch, so only the others are equal.
    assert held[0] == pytest.approx(held[1], abs=1e-5) or preset.startswith("clip")
    assert len(held[1]) == 2


@pytest.mark.parametrize(
    "engine", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow),
               pytest.param("zero3", marks=[pytest.mark.slow, needs_deepspeed])],
)  # fmt: skip
def test_a_prior_of_any_order_gives_one_processs_numbers(ranks, ground, tmp_path, engine):
    """In reading order. Orders of chance are each rank's own, so there the runs are alike and not equal."""
    for share in ("1", "0"):
        found = []
        for name in ("single", engine):
            processes, settings = ENGINES[name]
            args = arguments(ground, tmp_path / f"{name}-{share}", 6, "--model.query-depth", "1",
                             "--model.raster-share", share, *settings)  # fmt: skip
            args[1] = "any-xs-64"
            ranks.run(processes, main_with(args))
            found.append(Run(tmp_path / f"{name}-{share}"))
        if share == "1":
            assert_equal_runs(found[1], found[0])
        else:
            held = [[r["held_loss"] for r in run.read_metrics() if "held_loss" in r][-1] for run in found]
            assert held[0] == pytest.approx(held[1], rel=0.05)


def resumed(train: Callable[..., Run], first: Run, out: Path, engine: str) -> Run:
    """The run as it was at step 5 of 10, gone on with under another engine."""
    shutil.copytree(first.folder, out)
    shutil.rmtree(out / "step-000010")
    (out / "best").unlink(missing_ok=True)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "out": str(out)}))
    return train(out, engine, 10)


@pytest.mark.parametrize(("first", "second"), [("fsdp", "single"), ("ddp", "fsdp")])
def test_a_run_goes_on_under_another_engine(train, reference, tmp_path, first, second):
    begun = train(tmp_path / "first", first, 10)
    assert_equal_runs(resumed(train, begun, tmp_path / "second", second), reference())


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("first", ["single", "ddp", "fsdp", "zero1", "zero3"])
def test_runs_go_on_across_every_pair(train, reference, tmp_path, first):
    begun = train(tmp_path / "first", first, 10)
    for second in ("single", "ddp", "fsdp", "zero1", "zero3"):
        assert_equal_runs(resumed(train, begun, tmp_path / second, second), reference())


@pytest.mark.slow
def test_twenty_kills_of_two_processes_change_nothing(train, ground, tmp_path):
    """SIGKILL at random moments of a run that saves every five steps; the same command goes on each time.

    Progress decides when, not the clock: a fast machine must not be done before the last kill.
    """
    steps, more = 600, ["--save-every", "5", "--valid-every", "0"]
    whole = train(tmp_path / "whole", "fsdp", steps, "--save-every", "100", "--valid-every", "0")
    args = arguments(ground, tmp_path / "killed", steps, *more, "--machine.engine", "fsdp")
    log, chance = tmp_path / "killed" / "metrics.jsonl", random.Random(0)
    size = lambda: log.stat().st_size if log.is_file() else 0
    for kill in range(20):
        before = size()
        process = subprocess.Popen(command(2, *args), env=ENVIRONMENT, start_new_session=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        if kill % 4:  # every fourth is killed while it starts
            while size() <= before:
                assert process.poll() is None, f"it ended before kill {kill}"
                time.sleep(0.05)
        time.sleep(chance.uniform(0.0, 0.6) if kill % 4 else chance.uniform(1.0, 5.0))
        assert process.poll() is None, f"it ended before kill {kill}"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    run(command(2, *args), timeout=600)
    assert_equal_runs(Run(tmp_path / "killed"), whole)
    hidden = {path.name for path in (tmp_path / "killed").glob(".*")}
    assert hidden <= {".tessera", ".tessera-lock"}, "temporary files are left over"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked to see to it")
def test_workers_die_with_their_launcher_even_while_they_start(ground, tmp_path):
    process = subprocess.Popen(command(2, *arguments(ground, tmp_path / "run", 50)), env=ENVIRONMENT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    while len(started := workers(process.pid)) < 2:
        time.sleep(0.05)
    time.sleep(0.5)  # they are still importing torch
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    gone, until = False, time.monotonic() + 120  # a busy machine imports for long
    while not gone and time.monotonic() < until:
        time.sleep(0.1)
        gone = not any(Path(f"/proc/{pid}").exists() for pid in started)
    for pid in started if not gone else ():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert gone


def workers(parent: int) -> list[int]:
    out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(p) for p in out.split()]


@pytest.mark.slow
def test_one_dead_rank_ends_the_job_and_restarts_continue_it(train, ground, tmp_path):
    whole = train(tmp_path / "whole", "ddp", 60)
    for restarts in ("0", "3"):
        out = tmp_path / restarts
        launch = command(2, *arguments(ground, out, 60))
        launch[3:3] = ["--max_restarts", restarts]
        process = subprocess.Popen(
            launch, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while not (out / "step-000005").is_dir():
            time.sleep(0.2)
        os.kill(workers(process.pid)[1], signal.SIGKILL)
        began = time.monotonic()
        _, said = process.communicate(timeout=240)
        if restarts == "0":
            assert process.returncode != 0
            assert time.monotonic() - began < 60
            assert "Signal 9" in said or "SIGKILL" in said
        else:
            assert process.returncode == 0, said[-2000:]
            assert_equal_runs(Run(out), whole)


def documented_lines(launcher: str) -> list[str]:
    """The command lines of docs/cluster.md by which a launcher trains one model, continued lines joined, those with `...` left
    out (`learn` in several processes is tested in journeys/test_learn)."""
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith(f"{launcher} ")]
    return [line for line in lines if " tessera train " in line and " ... " not in line]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_documented_command_lines_run_as_printed(ground, tmp_path, launcher):
    program = Path(sys.executable).parent / launcher
    if not program.is_file():
        pytest.skip(f"{launcher} is not installed")
    (line,) = documented_lines(launcher)
    words = line.replace("PICTURES", str(ground / "birds")).replace("runs/vae", str(ground / "vae"))
    words = words.replace("runs/prior", str(tmp_path / "prior")).split()
    small = ["--steps", "2", "--optim.batch", "4", "--model.transformer.depth", "1", "--preview-every", "0"]
    environment = {**ENVIRONMENT, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    environment["PET_MASTER_PORT"] = (
        port()
    )  # torchrun's; DeepSpeed's stays the usual one, and they may run side by side
    done = subprocess.run(
        [str(program), *words[1:], *small], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert Run(tmp_path / "prior").latest().name == "step-000002"


def test_sigterm_saves_and_asks_to_be_requeued(ranks, ground, tmp_path):
    process = ranks.start(0, main_with(arguments(ground, tmp_path / "run", 100_000)))
    while not (tmp_path / "run" / "step-000005").is_dir():
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == REQUEUE == 75
    assert "everything is saved" in said
    assert Run(tmp_path / "run").latest().name > "step-000005"


DIFFER = """
from tessera.config import MachineConfig
from tessera.train.engines.ddp import DDPEngine
engine = DDPEngine(MachineConfig(device="cpu"))
engine.assert_replicas_equal(3.5, "the data")
engine.assert_replicas_equal(float(engine.rank), "the weights")
"""


def test_ranks_that_hold_other_data_or_weights_are_found(ranks):
    """Two processes, called as the loop calls them, with a different number on each."""
    process = ranks.start(2, DIFFER)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "The ranks disagree about the weights" in said
    assert "the data" not in said


# What cannot work is refused before the start.


def config(**changes) -> TrainConfig:
    machine = MachineConfig(device="cpu", **changes.pop("machine", {}))
    return TrainConfig(machine=machine, **changes)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (config(machine={"engine": "fsdp"}, optim=OptimConfig(name="muon")), "muon works on whole matrices"),
        (config(machine={"engine": "fsdp", "precision": "fp16"}), "bf16 or float32"),
        (
            config(
                machine={"engine": "fsdp"},
                model=TextToImageConfig(transformer=TransformerConfig(reversible=True, shared_attn=("a",))),
            ),
            "Shared layers in reversible wiring",
        ),
    ],
)
def test_combinations_that_cannot_work_are_refused(config, says):
    with pytest.raises(ConfigError, match=says):
        engines.choose(config)


def test_a_batch_that_ranks_cannot_share_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="must divide by 3 ranks"):
        engines.choose(config(optim=OptimConfig(batch=32)))
    with pytest.raises(ConfigError, match="launcher started 3"):
        engines.choose(config(machine={"engine": "single"}, optim=OptimConfig(batch=33)))


def settings(tmp_path: Path, content: dict, **changes) -> dict:
    (tmp_path / "ds.json").write_text(json.dumps(content))
    machine = MachineConfig(deepspeed=str(tmp_path / "ds.json"), **changes)
    return deepspeed_settings.settings(machine, OptimConfig(batch=8, clip=0.5), 2, torch.float32, torch.device("cpu"))


def test_deepspeeds_json_is_taken_whole(tmp_path):
    given = {
        "train_batch_size": "auto",
        "gradient_clipping": 0.5,
        "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}, "reduce_bucket_size": 12345},
        "steps_per_print": 77,
    }
    found = settings(tmp_path, given)
    assert found["zero_optimization"] == given["zero_optimization"]
    assert (found["train_batch_size"], found["train_micro_batch_size_per_gpu"]) == (8, 4)
    assert found["steps_per_print"] == 77


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"train_batch_size": 16}, "train_batch_size is 16 there and 8 by optim.batch"),
        ({"gradient_clipping": 1.0}, "by optim.clip"),
        ({"optimizer": {"type": "Adam"}}, "--optim.name"),
        ({"zero_optimisation": {}}, "did you mean 'zero_optimization'"),
        ({"fp16": {"enabled": True}}, "fp16 is refused"),
        ({"bf16": {"enabled": True}, "zero_optimization": {"stage": 0}}, "hidden empty step"),
        ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, "stage 3 only"),
    ],
)
def test_conflicts_with_deepspeeds_json_are_named(tmp_path, content, says):
    with pytest.raises(ConfigError, match=says):
        settings(tmp_path, content)


def test_weights_on_a_disk_have_no_mean(tmp_path):
    machine = MachineConfig(nvme=str(tmp_path), offload="optimizer")
    with pytest.raises(ConfigError, match=r"optim\.ema needs the weights in memory"):
        deepspeed_settings.settings(machine, OptimConfig(batch=8, ema=0.9), 2, torch.float32, torch.device("cpu"))


def test_horovod_says_what_it_takes():
    if importlib.util.find_spec("horovod"):
        pytest.skip("Horovod is installed")
    with pytest.raises(ConfigError, match=r"--machine\.engine ddp does the same"):
        engines.choose(config(machine={"engine": "horovod"}))


@pytest.mark.slow
def test_bad_data_ends_all_ranks_with_one_sentence(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_text("not a picture")
    (tmp_path / "pictures/a.txt").write_text("a bird")
    done = subprocess.run(
        command(2, "train", "dvae-xs-64", "--data.path", str(tmp_path / "pictures"), "--out", str(tmp_path / "run")),
        env=ENVIRONMENT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("tessera: ") == 1
    ours = done.stderr.split("torch/distributed/elastic")[0]
    assert "Traceback" not in ours
    assert "gloo" not in done.stderr
