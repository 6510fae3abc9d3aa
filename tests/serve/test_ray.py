"""Ray Serve on this machine: one of two replicas is killed under load, and every client gets the picture of its seed."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import psutil
import pytest
import torch
from PIL import Image

from conftest import MODERN, TINY_DVAE, prior
from tessera.generate.pipeline import Pipeline
from tessera.models import saved
from tessera.models.dvae import DiscreteVAE
from tessera.tokens.text import Numbers

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_serve.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: tessera-t2i[ray]"),
]
CLIENTS = 6


def run_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    checkpoint = folder / "step-000001"
    saved.write(checkpoint, prior(MODERN, image_vocab=27, grid=4))
    saved.write(checkpoint / "image_tokenizer", DiscreteVAE(TINY_DVAE))
    Numbers(20).save(checkpoint / "text_tokenizer")
    return folder


def replicas(server: int) -> set[int]:
    """The processes that draw."""
    found = set()
    for child in psutil.Process(server).children(recursive=True):
        try:
            words = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if words.startswith("ray::ServeReplica:tessera:Runs"):
            found.add(child.pid)
    return found


@contextmanager
def cluster(run: Path, log: Path):
    """The address and the process of the example, with two replicas."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        str(EXAMPLE),
        str(run),
        "--port",
        str(port),
        "--min-replicas",
        "2",
        "--max-replicas",
        "2",
    ]
    command += ["--cpus", "0.1", "--max-batch", "4", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as said:
        own = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment)
        try:
            line = own.stdout.readline()
            assert line.startswith(f"Serving {run.name} at http://127.0.0.1:{port}/v1"), line + log.read_text()
            yield f"http://127.0.0.1:{port}", own
            children = psutil.Process(own.pid).children(recursive=True)
            own.send_signal(signal.SIGTERM)
            assert own.wait(90) == 0
            _, left = psutil.wait_procs(children, 30)
            assert not left, "nothing is left behind"
        finally:
            if own.poll() is None:
                for child in psutil.Process(own.pid).children(recursive=True):
                    child.kill()
                own.kill()
                own.wait()
            own.stdout.close()


class Load:
    """Clients that ask and ask, and what they saw."""

    def __init__(self, address: str, known: dict[int, bytes]):
        self.address, self.known, self.over = address, known, threading.Event()
        self.answers, self.failed, self.wrong = Counter(), list[str](), list[str]()
        self.times = list[float]()
        self.threads = [threading.Thread(target=self.ask, args=(i,)) for i in range(CLIENTS)]

    def count(self, answer: httpx.Response) -> None:
        self.answers[answer.status_code] += 1
        if answer.status_code >= 400:
            self.failed.append(f"{answer.status_code} {answer.headers.get('retry-after')} {answer.read().decode()}")

    def ask(self, number: int) -> None:
        """OpenAI's own client, with its own retries."""
        with (
            httpx.Client(event_hooks={"response": [self.count]}, timeout=60) as http,
            openai.OpenAI(base_url=f"{self.address}/v1", api_key="none", max_retries=6, http_client=http) as client,
        ):
            seed = number
            while not self.over.is_set():
                seed = (seed + 5) % len(self.known)
                try:
                    made = client.images.generate(prompt="1 2", n=1, size="16x16", extra_body={"seed": seed})
                except openai.APIError as error:
                    self.wrong.append(repr(error))
                    continue
                found = Image.open(io.BytesIO(base64.b64decode(made.data[0].b64_json))).tobytes()
                self.times.append(time.monotonic())
                if found != self.known[seed]:
                    self.wrong.append(f"another picture for seed {seed}")


def test_a_replica_that_is_killed_under_load_loses_only_what_was_on_it_and_comes_back(tmp_path):
    run = run_folder(tmp_path / "birds")
    known = {p.seed: p.image.tobytes() for p in Pipeline.load(run, "cpu")("1 2", count=40)}
    with cluster(run, tmp_path / "log") as (address, own):
        before = replicas(own.pid)
        assert len(before) == 2
        load = Load(address, known)
        for thread in load.threads:
            thread.start()
        try:
            while len(load.times) < 40:
                time.sleep(0.1)
            assert not load.failed, "nothing fails before"
            victim, killed = min(before), time.monotonic()
            os.kill(victim, signal.SIGKILL)
            while time.monotonic() < killed + 120 and len(replicas(own.pid) - {victim}) < 2:
                time.sleep(0.2)
            back = time.monotonic() - killed
            at = len(load.times)
            until = time.monotonic() + 60
            while len(load.times) < at + 40 and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            load.over.set()
            for thread in load.threads:
                thread.join(120)
        after = replicas(own.pid)
    print(
        f"answers {dict(load.answers)}, {len(load.times)} pictures, back after {back:.1f} s, failed: {load.failed[:2]}"
    )
    assert not load.wrong, load.wrong[:3]
    assert len(after) == 2
    assert after != before
    assert len(load.times) >= at + 40, "it draws on"
    assert set(load.answers) <= {200, 503}, load.failed[:3]
    assert 1 <= load.answers[503] <= CLIENTS, "those in flight on the one that was killed, and no others"
    assert all(text.startswith("503 1 ") and '"code":"replica"' in text for text in load.failed), load.failed[:2]
