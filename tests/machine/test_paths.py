"""Every fast path can be absent: the plain path then gives the same numbers, and the run says what it does without."""

import os
import subprocess
import sys

import pytest
import torch

from conftest import CLASSIC, MODERN, prior
from tessera.config import MachineConfig, SampleConfig
from tessera.errors import ConfigError
from tessera.generate import raster
from tessera.generate.weights import prepare
from tessera.machine import device, paths
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


def test_a_processor_that_is_told_to_be_older_has_no_bf16_products():
    """In a process of its own, because oneDNN asks for its instructions once."""
    program = "from tessera.machine import paths; print(paths.why_not('bf16'))"
    older = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", program], env=older, capture_output=True, text=True, check=True)
    assert done.stdout.strip(), "oneDNN imitates bf16 products where it may use AVX2 alone, a dozen times slower"


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
