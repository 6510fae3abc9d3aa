"""The main journey on a toy: a folder in, a model, pictures and a report out; killed on the way, it goes on."""

import dataclasses
import json
import time

import pytest

from ranks import main_with
from tessera.cli import main
from tessera.config import MachineConfig, TrainConfig
from tessera.journeys import birds
from tessera.journeys import learn as learning
from tessera.store.run import Run


def test_learn_from_a_folder(bird_folder, tmp_path, capsys):
    args = [
        "learn",
        str(bird_folder),
        "--out",
        str(tmp_path),
        "--budget",
        "3s",
        "--samples",
        "4",
        "--pixels",
        "32",
        "--grid",
        "8",
    ]
    main(args)
    out = capsys.readouterr().out
    assert "40 captioned pictures" in out
    assert "nats per code" in out
    for name in ("report.html", "figures.json", "contact-sheet.png", "learn.json", "codes/index.json"):
        assert (tmp_path / name).stat().st_size > 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64") >= 4 + 4
    assert "http" not in page.replace("http://www.w3.org", ""), "the page must be self-contained"
    before = Run(tmp_path).latest()
    main(args)
    assert Run(tmp_path).latest() == before, "the finished command has nothing left to learn"


def test_learn_killed_in_every_stage_goes_on(ranks, bird_folder, tmp_path):
    command = main_with(["learn", str(bird_folder), "--out", str(tmp_path), "--budget", "3s", "--samples", "2", "--pixels", "32", "--grid", "8"])  # fmt: skip
    for sign in ("tokenizer/step-000000", "step-000000"):
        process = ranks.start(0, command)
        deadline = time.monotonic() + 120
        while (
            process.poll() is None
            and not (tmp_path / sign / "weights.safetensors").is_file()
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        time.sleep(0.5)
        process.kill()
        process.wait()
    ranks.run(0, command)
    assert (tmp_path / "report.html").is_file()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert float(figures["best held-out loss, nats per code"].split()[0]) > 0


@pytest.mark.slow
def test_the_demo_learns_to_bind_colours(tmp_path, monkeypatch):
    """A demo cut down to minutes finds far more of the asked colours than chance would, which is 0.17 on average.

    Its stages take fixed numbers of steps, so that it does not depend on the clock. Measured: 0.49 of the colours in its
    drawings (background 0.93, wings 0.53, body 0.50) and 0.77 in what its codes keep of pictures, in 3.5 minutes of one
    core.
    """
    small = {
        "pixels": 32,
        "layers": 2,
        "hidden": 32,
        "levels": (6, 6, 6),
        "dim": 96,
        "depth": 3,
        "views": 1,
        "dropout": 0.0,
    }
    rarely = {"budget": "", "valid_every": 0, "preview_every": 0, "save_every": 10**6}
    machine = MachineConfig(device="cpu", precision="float32", threads=1)
    choose, stages, draw_folder = learning.choose, learning.stages, birds.draw_folder

    def fixed(config: TrainConfig, steps: int, lr: float) -> TrainConfig:
        optim = dataclasses.replace(config.optim, lr=lr)
        return dataclasses.replace(config, steps=steps, optim=optim, machine=machine, **rarely)

    def by_steps(*args) -> tuple[TrainConfig, TrainConfig]:
        tokenizer, prior = stages(*args)
        return fixed(tokenizer, 250, 4e-3), fixed(prior, 500, 8e-3)

    monkeypatch.setattr(learning, "choose", lambda *args: dataclasses.replace(choose(*args), **small))
    monkeypatch.setattr(learning, "stages", by_steps)
    monkeypatch.setattr(birds, "draw_folder", lambda folder, count, seed: draw_folder(folder, count, 32, seed))
    main(["demo", "--out", str(tmp_path), "--birds", "2000", "--questions", "60"])
    assert Run(tmp_path).latest().name == "step-000500"
    shares = json.loads((tmp_path / "colours.json").read_text())
    assert shares["all"] > 0.35
