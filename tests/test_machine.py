"""Every fast path can be absent: the plain path then gives the same numbers, and the run says what it does without."""

import subprocess
import sys

import pytest
import torch

from conftest import CLASSIC, MODERN, prior
from tessera.config import MachineConfig, SampleConfig
from tessera.errors import ConfigError
from tessera.generate import raster
from tessera.generate.weights import prepare
from tessera.machine import device, launch, paths
from tessera.machine.threads import Fixed, Measured, candidates
from tessera.train.engines.single import SingleEngine

TOKENS = torch.tensor([[3, 4, 7, 23, 24], [5, 21, 22, 23, 24]])
CODES = torch.arange(30).view(2, 15) % 11


@pytest.mark.parametrize("kind", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("config", [MODERN, CLASSIC], ids=["modern", "dalle1"])
@pytest.mark.parametrize("without", ["packed_float32", "packed_bf16", "int8", "packed_float32,packed_bf16,int8"])
def test_weights_draw_alike_without_the_fast_products(config, kind, without, monkeypatch):
    near = 1e-5 if kind == "float32" else 0.05
    with torch.no_grad():
        wanted = prior(config).image_logits(TOKENS, CODES)
        monkeypatch.setenv(paths.SWITCH, without)
        assert not any(paths.has(name) for name in without.split(","))
        plain = prepare(prior(config), kind)
        assert (plain.image_logits(TOKENS, CODES) - wanted).abs().max() < near * wanted.abs().max()
        drawn = raster.codes(plain, TOKENS, [1, 2], SampleConfig(guidance=2.0))
    assert drawn.shape == (2, 16)


@pytest.mark.parametrize("name", ["onednn_float32", "bf16", "mallopt", "compiler"])
def test_training_gives_the_same_numbers_without_a_fast_path(name, monkeypatch):
    def losses() -> list[float]:
        model = prior(MODERN)
        engine = SingleEngine(MachineConfig(device="cpu", precision="float32"))
        trainee = engine.add(model, lambda m: torch.optim.SGD(m.parameters(), lr=0.1), clip=1.0)
        found = []
        for _ in range(3):
            loss = trainee.model(TOKENS, torch.arange(32).view(2, 16) % 11).total
            trainee.backward(loss)
            engine.step({"model": 0.1})
            found.append(loss.item())
        return found

    wanted = losses()
    monkeypatch.setenv(paths.SWITCH, name)
    assert losses() == pytest.approx(wanted, abs=1e-5)


def test_without_bf16_products_auto_computes_in_float32(monkeypatch):
    monkeypatch.setenv(paths.SWITCH, "bf16")
    assert SingleEngine(MachineConfig(device="cpu")).dtype == torch.float32


def test_without_a_compiler_a_run_says_so_and_goes_on(monkeypatch):
    monkeypatch.setenv(paths.SWITCH, "compiler")
    with pytest.warns(UserWarning, match="Nothing is compiled: the compiler is missing .switched off by"):
        assert not device.compiles("on", torch.device("cpu"))


def test_without_glibc_memory_calls_do_nothing(monkeypatch):
    monkeypatch.setenv(paths.SWITCH, "mallopt")
    assert device._glibc() is None
    device.keep_freed_memory()
    device.release()


@pytest.mark.parametrize(
    ("attempt", "says"),
    [(lambda: 1 / 0, "division by zero"), (lambda: 0.5, "off by 0.5"), (lambda: float("nan"), "off by nan")],
)
def test_a_path_that_raises_or_gives_other_numbers_is_missing(attempt, says, monkeypatch):
    monkeypatch.setitem(paths.PATHS, "toy", paths.FastPath("a toy", attempt, near=0.1))
    paths.missing.cache_clear()
    assert says in paths.missing("toy")
    assert not paths.has("toy")
    assert f"toy (missing: {paths.missing('toy')})" in paths.summary()
    paths.missing.cache_clear()


def test_a_path_is_tried_once(monkeypatch):
    tried = []
    monkeypatch.setitem(paths.PATHS, "toy", paths.FastPath("a toy", lambda: tried.append(1) or 0.0))
    assert all(paths.has("toy") for _ in range(3))
    assert tried == [1]
    paths.missing.cache_clear()


def test_an_unknown_path_is_named_with_the_nearest(monkeypatch):
    monkeypatch.setenv(paths.SWITCH, "packed_b16")
    with pytest.raises(ConfigError, match="'packed_b16'; did you mean 'packed_bf16'"):
        paths.has("int8")


# Threads.


class Machine:
    """A computer with four cores whose speed with each count of threads is given."""

    def __init__(self, seconds: dict[int, float]):
        self.seconds, self.now, self.tried = seconds, 0.0, 0

    def measure(self, count: int) -> float:
        self.tried += 1
        return self.seconds[count]

    def steps(self, threads: Measured, seconds: float, count: int = 10) -> None:
        for _ in range(count):
            self.now += seconds
            threads.tick()


@pytest.fixture
def four_cores(monkeypatch):
    counts = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1])
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    return counts


def test_candidates_are_halves():
    assert candidates(6) == [6, 3, 1]


def test_the_fastest_count_is_taken_and_of_equal_ones_the_largest(four_cores):
    machine = Machine({4: 1.0, 2: 0.99, 1: 0.5})
    assert Measured(machine.measure, lambda: machine.now).count == 1
    assert four_cores[-1] == 1
    four_cores.append(4)
    assert Measured(Machine({4: 1.0, 2: 0.97, 1: 0.96}).measure).count == 4


def test_slow_steps_are_answered_by_measuring_again_and_a_free_machine_by_more_threads(four_cores):
    machine = Machine({4: 1.0, 2: 2.0, 1: 4.0})
    threads = Measured(machine.measure, lambda: machine.now)
    machine.steps(threads, 4.0)
    assert (threads.count, machine.tried) == (4, 3)  # as fast as ever: nothing to measure
    machine.seconds = {4: 9.0, 2: 2.0, 1: 4.0}
    machine.steps(threads, 9.0)
    assert (threads.count, machine.tried) == (2, 6)
    machine.seconds = {4: 1.0, 2: 2.0, 1: 4.0}
    machine.steps(threads, 5.0)
    assert threads.count == 4


def test_only_runs_that_depend_on_the_clock_change_their_threads(four_cores, monkeypatch):
    assert isinstance(SingleEngine(MachineConfig(device="cpu")).threads, Fixed)
    assert isinstance(SingleEngine(MachineConfig(device="cpu", threads=2), adapts=True).threads, Fixed)
    monkeypatch.setattr("tessera.machine.threads.seconds_with", lambda count: 1.0)
    assert isinstance(SingleEngine(MachineConfig(device="cpu"), adapts=True).threads, Measured)


def test_waiting_threads_sleep_unless_the_user_said_otherwise(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    launch.wait_politely()
    assert launch.os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    launch.wait_politely()
    assert "GOMP_SPINCOUNT" not in launch.os.environ


def test_the_command_line_decides_how_threads_wait_before_torch_is_loaded():
    code = "import os, sys, tessera.cli as c; c.main(['--version']); print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "1000 False"
