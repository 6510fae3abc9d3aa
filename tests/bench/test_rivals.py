"""The rivals: all are given the same pictures and judged alike."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import rivals
from rival_task import DRAWINGS, Task
from tessera.data.pictures import to_image
from tessera.evaluate.features import Seen
from tessera.evaluate.looking import floats
from tessera.journeys import birds

BENCH = Path(__file__).parents[2] / "bench"


class Colours:
    """Sees six numbers and two classes: whether a picture is rather red or rather blue."""

    name, classes = "Colours", True

    def __call__(self, pixels: torch.Tensor) -> Seen:
        halves = torch.cat([p.mean((2, 3)) for p in pixels.chunk(2, 2)], 1)
        return Seen(halves, torch.stack((halves[:, 0], halves[:, 2]), 1).mul(20).softmax(1))


@pytest.fixture
def course(tmp_path):
    birds.draw_folder(tmp_path / "pictures", 90, 40)
    return rivals.course(str(tmp_path / "pictures"), tmp_path / "out", 0.02, 0, 24, 16, 1, "wall")


def test_a_rival_gets_what_learn_learns_from(course):
    rivals.hand_over(course)
    task = Task.read(course.folder)
    assert len(task.pictures) == len(course.learned) < 90
    assert len(course.learned) + len(course.held) == 90
    assert [a.caption for a in course.wanted] == [caption for caption, _ in task.asked]
    held = {caption for pair in course.held for caption in pair.captions}
    assert all(a.caption in held for a in course.wanted)
    # Whole squares are what evaluation sees of the same pictures, but for a second time of making them small.
    pixels, captions, _ = next(task.batches(len(task.pictures), 1.0, False, 1e9))
    seen = floats(rivals.squares(course.learned, 16))
    by_caption = {c: i for i, pair in enumerate(course.learned) for c in pair.captions}
    unique = [(n, c) for n, c in enumerate(captions) if sum(c in p.captions for p in course.learned) == 1]
    assert len(unique) > 20
    assert all((pixels[n] - seen[by_caption[c]]).abs().mean() < 0.03 for n, c in unique)


def test_a_task_goes_epoch_by_epoch_and_stops(course):
    rivals.hand_over(course)
    task = Task.read(course.folder)
    count, read = len(task.pictures), []
    for pixels, captions, step in task.batches(10, 0.75, True, 1e9):
        assert pixels.shape == (10, 3, 16, 16)
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        read += captions
        if step == 2 * count // 10:
            break
    first = [next(i for i, own in enumerate(task.learned) if c in own) for c in read[:count]]
    assert len(set(first)) >= count - 4  # some captions belong to two birds
    assert list(task.batches(10, 1.0, False, 0.0)) == []


def test_photographs_are_like_photographs_and_noise_is_not(course, monkeypatch):
    monkeypatch.setattr(rivals, "load", lambda name, device: Colours())
    ruler, noise = rivals.Ruler(course), np.random.default_rng(0)
    held = rivals.squares(course.held, 16)
    for way in ("photographs", "noise"):
        folder = course.folder / DRAWINGS / way
        folder.mkdir(parents=True)
        for i, asked in enumerate(course.wanted):
            pixels = held[asked.picture] if way == "photographs" else torch.tensor(noise.integers(0, 256, (3, 16, 16)))
            to_image(pixels.float() / 255).save(folder / f"{i:05d}.png")
    true, false = ({f.name: f for f in ruler.figures(course.folder / DRAWINGS / w)} for w in ("photographs", "noise"))
    kid = "KID-Colours × 1000"
    assert true[kid].value.value < false[kid].value.value
    assert abs(true[kid].value.value - true[kid].ceiling.value) < 0.2 * (false[kid].value.value - true[kid].value.value)
    rate = true["subject rate-Colours"]
    assert abs(rate.value.value - rate.ceiling.value) < 0.25
    words = next(name for name in true if "words seen" in name)
    assert true[words].value.value > false[words].value.value


def test_every_way_of_drawing_has_its_row(course, monkeypatch, tmp_path):
    monkeypatch.setattr(rivals, "load", lambda name, device: Colours())
    monkeypatch.setattr("common.RESULTS", tmp_path / "results")
    monkeypatch.setattr(rivals, "RESULTS", tmp_path / "results")
    held = rivals.squares(course.held, 16)
    for way in ("guidance 1", "guidance 2"):
        folder = course.folder / DRAWINGS / way
        folder.mkdir(parents=True)
        for i, asked in enumerate(course.wanted):
            to_image(floats(held[asked.picture])).save(folder / f"{i:05d}.png")
    rivals.judged("toy", course, {"steps": 3, "epochs": 1.5, "cpu_seconds": 2.0})
    rows = [json.loads(line) for line in (tmp_path / "results/rivals.jsonl").read_text().splitlines()]
    assert [r["way"] for r in rows] == ["guidance 1", "guidance 2"]
    assert rows[0]["figures"] == rows[1]["figures"]
    assert [line.count("|") for line in rivals.table()] == [rivals.table()[0].count("|")] * 4


CACHED = """
import torch, rival_dalle
from dalle_pytorch import DALLE, DiscreteVAE
torch.manual_seed(0)
for positions in (False, True):
    vae = DiscreteVAE(image_size=16, num_layers=2, num_tokens=30, codebook_dim=16, hidden_dim=8)
    model = DALLE(vae=vae, num_text_tokens=49408, text_seq_len=12, dim=32, depth=2, heads=2, dim_head=16,
                  shift_tokens=positions, rotary_emb=positions).eval()
    text, codes = rival_dalle.tokens(["a red bird", "a blue one"], 12), torch.randint(0, 30, (2, 16))
    with torch.no_grad():
        whole, cache = model(text.clone(), codes)[:, 12:], {}
        steps = [model(text.clone(), codes[:, :i], cache=cache)[:, -1] for i in range(16)]
    torch.testing.assert_close(torch.stack(steps, 1), whole, atol=1e-4, rtol=1e-4)
    assert rival_dalle.draw(model, ["a red bird", "a blue one"]).shape == (2, 3, 16, 16)
"""


def test_the_original_draws_the_same_by_its_cached_forward():
    place = Path.home() / ".cache/tessera/bench/dalle-pytorch-1.6.6"
    if not (place / "ready").is_file():
        pytest.skip("DALLE-pytorch is not here; bench/against.py installs it")
    done = subprocess.run([sys.executable, "-c", CACHED], capture_output=True, text=True,
                          env={"PYTHONPATH": f"{place}:{BENCH}", "OMP_NUM_THREADS": "1", "PATH": ""})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
