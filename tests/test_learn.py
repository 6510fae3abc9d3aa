"""The main journey on a toy: a folder in, a model, pictures and a report out; killed on the way, it goes on."""

import json
import os
import subprocess
import sys
import time

import pytest

from tessera.cli import main
from tessera.store import Run


def test_learn_from_a_folder(bird_folder, tmp_path, capsys):
    args = [
        "learn",
        str(bird_folder),
        "--out",
        str(tmp_path),
        "--budget",
        "8s",
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


def test_learn_killed_in_every_stage_goes_on(bird_folder, tmp_path):
    command = [sys.executable, "-m", "tessera", "learn", str(bird_folder), "--out", str(tmp_path), "--budget", "8s", "--samples", "2", "--pixels", "32", "--grid", "8"]  # fmt: skip
    for sign in ("tokenizer/step-000000", "step-000000"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "report.html").is_file()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert float(figures["best held-out loss, nats per code"].split()[0]) > 0


@pytest.mark.slow
def test_the_demo_learns_to_bind_colours(tmp_path):
    """A demo cut to a third already draws twice as many of the asked colours as chance would (0.17 on average)."""
    environment = {
        k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"
    }  # alone on the machine, with all cores
    command = [sys.executable, "-m", "tessera", "demo", "--out", str(tmp_path), "--budget", "4m", "--questions", "60"]
    subprocess.run(command, check=True, env=environment)
    shares = json.loads((tmp_path / "colours.json").read_text())
    assert shares["all"] > 0.35
