"""Pictures that sit down and leave while others are drawn are those that are drawn alone, to the last bit of every code."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import CLASSIC, MODERN, prior
from tessera.config import SampleConfig
from tessera.errors import CheckpointError
from tessera.generate import raster
from tessera.generate.weights import prepare
from tessera.models.text_to_image import TextToImage
from tessera.serve.seats import Drawing, Seats, agreeing, places_needed

WAYS = [
    SampleConfig(),
    SampleConfig(guidance=2.0),
    SampleConfig(guidance=3.0, top_p=0.8),
    SampleConfig(temperature=0.0),
    SampleConfig(temperature=0.7, top_k=4),
]


def drawing(number: int, sampling: SampleConfig) -> Drawing:
    """One of many: its caption, seed and given codes follow from the number."""
    chance = random.Random(number)
    tokens = torch.tensor([[chance.randrange(1, 20), chance.randrange(1, 20), 22, 23, 24]])
    given = torch.tensor([[chance.randrange(11) for _ in range(chance.choice([0, 0, 4, 8, 15]))]], dtype=torch.long)
    return Drawing(tokens, given, chance.randrange(2**63), sampling)


def alone(model: TextToImage, d: Drawing) -> list[int]:
    """The slow, obvious way: a batch of one picture."""
    return raster.codes(model, d.tokens, [d.seed], d.sampling, d.given)[0].tolist()


@pytest.mark.parametrize(
    ("config", "kind"), [(MODERN, "plain"), (CLASSIC, "float32"), (MODERN, "int8")], ids=["modern", "dalle1", "int8"]
)
def test_whoever_comes_and_goes_each_picture_is_the_one_drawn_alone(config, kind):
    model = prior(config) if kind == "plain" else prepare(prior(config), kind)
    seats, chance, finished = Seats(model, 6), random.Random(kind), 0
    waiting = [drawing(n, chance.choice(WAYS)) for n in range(14)]
    while waiting or seats.drawings:
        while waiting and seats.free >= places_needed(waiting[-1].sampling) and chance.random() < 0.6:
            seats.sit(waiting.pop())
        for d in seats.drawings:
            if seats.left(d) == 0:
                assert seats.canvas(d)[0][0].tolist() == alone(model, d)
                seats.leave(d)
                finished += 1
            elif chance.random() < 0.01:
                assert seats.canvas(d)[0][0, : d.done].tolist() == alone(model, d)[: d.done], "what is shown is final"
                seats.leave(d)
        if seats.drawings:
            seats.step()
    assert finished > 8
    assert seats.free == 6


def test_a_step_computes_as_few_rows_as_a_size_allows_and_each_code_once(monkeypatch):
    model, read, decode = prepare(prior(MODERN)), [], TextToImage.decode
    monkeypatch.setattr(TextToImage, "decode", lambda s, c, p: read.append(len(c)) or decode(s, c, p))
    seats = Seats(model, 8)
    assert seats.sizes[-1] == 8
    read.clear()
    for seed in range(3):
        seats.sit(Drawing(torch.tensor([[3, 4, 22, 23, 24]]), torch.zeros(1, 0, dtype=torch.long), seed, WAYS[0]))
    for _ in range(15):
        seats.step()
    assert not any(seats.left(d) for d in seats.drawings)
    assert set(read) <= set(seats.sizes)
    assert max(read) <= 4 or 4 not in seats.sizes
    assert len(read) == 15


def test_what_captions_have_in_common_is_read_once_and_few_are_kept(monkeypatch):
    model, read, prefill = prior(MODERN), [], TextToImage.prefill
    monkeypatch.setattr(TextToImage, "prefill", lambda s, t, c, p: read.append(len(t)) or prefill(s, t, c, p))
    seats = Seats(model, 8)
    for seed in range(3):
        seats.sit(Drawing(torch.tensor([[3, 4, 22, 23, 24]]), torch.zeros(1, 0, dtype=torch.long), seed, WAYS[1]))
    assert read == [1, 1], "a caption, and none"
    for n in range(20):
        for d in seats.drawings:
            seats.leave(d)
        seats.sit(drawing(n, WAYS[0]))
    assert len(seats.beginnings.kept) <= 8


def test_sizes_in_which_this_machine_computes_other_bits_are_left_out():
    model = prior(MODERN)
    seats = Seats(model, 4)
    steps = dict(seats.steps)

    class Off:
        def __init__(self, size):
            self.size = size

        def __call__(self, codes, rows):
            logits = steps[self.size](codes, rows)
            return logits + 1e-3 * (self.size == 2)

    with torch.inference_mode():
        found = agreeing(seats.past, {s: Off(s) for s in steps}, seats.codes, seats.text)
    assert 2 not in found
    assert 4 in found


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_compiled_steps_draw_what_each_picture_is_alone():
    script = Path(__file__).with_name("compiled_seats.py")
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), "cpu", "2"], env=environment, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_damaged_weights_are_told():
    model = prior(MODERN)
    seats = Seats(model, 2)
    with torch.no_grad():
        model.image_head.weight.view(-1)[::2] = torch.nan
    with pytest.raises(CheckpointError, match="weights are damaged"):
        seats.sit(drawing(0, WAYS[0]))
