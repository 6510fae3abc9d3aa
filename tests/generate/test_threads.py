"""Several threads that draw with one Pipeline draw what one draws, and leave torch as it was."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from conftest import MODERN, TINY_DVAE, prior
from tessera.generate.pipeline import Pipeline
from tessera.generate.weights import prepare
from tessera.machine.device import few_rows, multiply_with_onednn
from tessera.models.dvae import DiscreteVAE
from tessera.tokens.image import Frozen
from tessera.tokens.text import Numbers


@pytest.mark.parametrize("kind", ["plain", "float32"])
def test_sixteen_threads_on_one_pipeline_draw_what_one_draws(kind):
    torch.manual_seed(0)
    model = prior(MODERN, image_vocab=27)
    model = model if kind == "plain" else prepare(model)
    pipeline = Pipeline(model, Numbers(20), Frozen(DiscreteVAE(TINY_DVAE).eval()))
    asked = [(f"{n % 19 + 1} 2", n, 1.0 + n % 3) for n in range(16)]
    draw = lambda prompt, seed, guidance: pipeline(prompt, seed=seed, guidance=guidance)
    wanted = [draw(*a) for a in asked]
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda a: draw(*a), asked))
    for one, many in zip(wanted, found, strict=True):
        assert [p.codes for p in one] == [p.codes for p in many]
        assert [p.image.tobytes() for p in one] == [p.image.tobytes() for p in many]
    assert matmul.fp32_precision == before


def test_what_threads_change_together_is_put_back_by_the_last():
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    multiply_with_onednn()
    own, inside, go = matmul.fp32_precision, threading.Event(), threading.Event()

    def stay():
        with few_rows():
            inside.set()
            go.wait(10)

    try:
        other = threading.Thread(target=stay)
        with few_rows():
            other.start()
            inside.wait(10)
        assert matmul.fp32_precision == "none", "the other is still inside"
        go.set()
        other.join()
        assert matmul.fp32_precision == own
    finally:
        go.set()
        matmul.fp32_precision = before
