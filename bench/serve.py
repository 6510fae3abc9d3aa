"""Does a server keep its word under load, and what does serving cost? `load MINUTES` lets 32 clients ask for anything
and asserts; `speed` compares with drawing offline at the same batch size. The server is a process of its own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import torch
from PIL import Image

from common import row
from tessera.config import FSQ, DVAEConfig, TextToImageConfig, TransformerConfig
from tessera.generate.pipeline import Pipeline
from tessera.models import saved
from tessera.models.dvae import DiscreteVAE
from tessera.models.text_to_image import TextToImage
from tessera.tokens.text import Numbers

CLIENTS, QUEUE, WORDS, SEEDS = 32, 64, 6, 6
WAYS = [{}, {"guidance": 2.0}, {"guidance": 3.0, "top_p": 0.8}, {"temperature": 0.7, "top_k": 9}]
MALFORMED = [
    b"", b"{", b"[]", b'{"prompt": ""}', b'{"prompt": "1", "n": 99}', b'{"prompt": "1", "size": "7x7"}', b"[" * 9999,
    b'{"prompt": "1", "model": "none"}', b'{"prompt": "1", "best_of": 1, "n": 2}', b'{"prompt": "1", "guidanse": 2}',
    b'{"prompt": "1", "seed": -1}', b'{"prompt": "1 1 1 1 1 1 1 1 1"}', b'{"prompt": "x y"}', b" " * 2_000_000,
]  # fmt: skip


def make_run(folder: Path, dim: int, depth: int, pixels: int, layers: int, text: int) -> Path:
    """A run with random weights whose prompts are numbers."""
    torch.manual_seed(0)
    vae = DVAEConfig(pixels=pixels, layers=layers, hidden=16, quantizer=FSQ(levels=(8, 8, 8)))
    transformer = TransformerConfig(dim=dim, depth=depth, heads=dim // 32, head_dim=32, zero_init=False)
    grid = pixels // 2**layers
    config = TextToImageConfig(text_vocab=50, text_len=text, image_vocab=512, grid=grid, transformer=transformer)
    checkpoint = folder / "step-000001"
    saved.write(checkpoint, TextToImage(config))
    saved.write(checkpoint / "image_tokenizer", DiscreteVAE(vae))
    Numbers(50).save(checkpoint / "text_tokenizer")
    return folder


@contextmanager
def server(run: Path, core: int | None = None, *flags: str) -> Iterator[tuple[str, subprocess.Popen, float]]:
    """Its address, its process, and the seconds until it was ready."""
    pin = ["taskset", "-c", str(core)] if core is not None else []
    command = [*pin, sys.executable, "-m", "tessera", "serve", str(run), "--port", "0", "--device", "cpu", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    own = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        line = own.stdout.readline()
        assert line.startswith("Serving"), line
        yield line.split()[-1].removesuffix("/v1"), own, time.perf_counter() - began
        own.terminate()
        assert own.wait(60) == 0, "it drains and ends well"
    finally:
        own.kill()
        own.wait()
        own.stdout.close()


# Load.


@dataclass
class Seen:
    """What 32 clients saw."""

    statuses: Counter = field(default_factory=Counter)
    pictures: int = 0
    aborted: int = 0
    malformed: int = 0
    wrong: list[str] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


class Known:
    """The picture of each prompt, way and seed, drawn alone."""

    def __init__(self, run: Path):
        self.pipeline, self.found = Pipeline.load(run, "cpu"), {}

    def digest(self, prompt: str, way: int, seed: int) -> str:
        key = prompt, way, seed
        if key not in self.found:
            (picture,) = self.pipeline(prompt, seed=seed, **WAYS[way])
            self.found[key] = pixels(picture.image)
        return self.found[key]


def pixels(image: Image.Image) -> str:
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def of_base64(text: str) -> str:
    return pixels(Image.open(io.BytesIO(base64.b64decode(text))))


async def client(own: httpx.AsyncClient, number: int, until: float, known: Known, seen: Seen) -> None:
    """Asks for anything until its time is over."""
    chance = random.Random(number)
    while time.monotonic() < until:
        kind = chance.random()
        if kind < 0.05:
            answer = await own.post("/v1/images/generations", content=chance.choice(MALFORMED), headers=JSON)
            seen.malformed += 1
            seen.statuses[answer.status_code] += 1
            if not 400 <= answer.status_code < 500 or "error" not in answer.json():
                seen.wrong.append(f"malformed: {answer.status_code}")
            continue
        prompt, way, seed = str(chance.randrange(WORDS)), chance.randrange(len(WAYS)), chance.randrange(SEEDS)
        body = {"prompt": prompt, "n": chance.choice([1, 1, 1, 2, 4]), "seed": seed, **WAYS[way]}
        wanted = [known.digest(prompt, way, seed + i) for i in range(body["n"])]
        ask = abort if kind < 0.15 else stream if kind < 0.45 else whole
        await ask(own, body, wanted, chance, seen)


JSON = {"content-type": "application/json"}


async def refused(answer: httpx.Response, seen: Seen) -> bool:
    """Whether the answer is an error: a full queue is waited for, anything else is wrong."""
    seen.statuses[answer.status_code] += 1
    if answer.status_code == 429:
        await asyncio.sleep(min(2.0, float(answer.headers["retry-after"])) * random.random())
    elif answer.status_code != 200:
        seen.wrong.append(f"{answer.status_code}: {(await answer.aread())[:200]!r}")
    return answer.status_code != 200


async def whole(own: httpx.AsyncClient, body: dict, wanted: list[str], chance: random.Random, seen: Seen) -> None:
    answer = await own.post("/v1/images/generations", json=body)
    if await refused(answer, seen):
        return
    found = [of_base64(d["b64_json"]) for d in answer.json()["data"]]
    seen.pictures += len(found)
    if found != wanted:
        seen.wrong.append(f"other pictures: {body}")


async def stream(own: httpx.AsyncClient, body: dict, wanted: list[str], chance: random.Random, seen: Seen) -> None:
    shown = chance.randrange(4)
    body |= {"stream": True, "partial_images": shown}
    async with own.stream("POST", "/v1/images/generations", json=body) as answer:
        if await refused(answer, seen):
            return
        told = [event async for event in events(answer)]
    for index, digest in enumerate(wanted):
        own_events = [e for e in told if e.get("index") == index]
        numbers = [e.get("partial_image_index") for e in own_events]
        if numbers != [*range(shown), None] or of_base64(own_events[-1]["b64_json"]) != digest:
            seen.wrong.append(f"stream {numbers}: {body} {[e for e in told if 'error' in e]}")
    seen.pictures += len(wanted)


async def events(answer: httpx.Response) -> AsyncIterator[dict]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def abort(own: httpx.AsyncClient, body: dict, wanted: list[str], chance: random.Random, seen: Seen) -> None:
    """Leave soon, listening or not."""
    with suppress(TimeoutError):
        async with asyncio.timeout(chance.random() * 0.3):
            body |= {"stream": chance.random() < 0.5}
            async with own.stream("POST", "/v1/images/generations", json=body) as answer:
                await answer.aread()
    seen.aborted += 1


async def watch(own: httpx.AsyncClient, process: psutil.Process, until: float, seen: Seen) -> None:
    while time.monotonic() < until:
        text = (await own.get("/metrics")).text
        seen.queue.append(float(re.search(r"tessera_queue_pictures\{.*?\} (\S+)", text)[1]))
        seen.memory.append(process.memory_info().rss)
        await asyncio.sleep(0.5)


async def crowd(address: str, process: psutil.Process, seconds: float, known: Known) -> Seen:
    seen, until = Seen(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as own:
        await asyncio.gather(
            watch(own, process, until, seen), *(client(own, i, until, known, seen) for i in range(CLIENTS))
        )
        await asyncio.sleep(1)
        text = (await own.get("/metrics")).text
        for gauge in ("tessera_queue_pictures", "tessera_rows_taken"):
            assert float(re.search(gauge + r"\{.*?\} (\S+)", text)[1]) == 0, f"{gauge}: somebody is left"
        assert float(re.search(r"\ntessera_requests_in_flight (\S+)", text)[1]) == 1, "but this one"
    return seen


def load(minutes: float) -> None:
    """Raises AssertionError where the server does not keep its word."""
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "tiny", 64, 2, 32, 2, 6)
        known = Known(run)
        for prompt in range(WORDS):
            for way in range(len(WAYS)):
                for seed in range(SEEDS + 4):
                    known.digest(str(prompt), way, seed)
        with server(run, None, "--max-queue", str(QUEUE), "--max-batch", "16") as (address, own, _):
            seen = asyncio.run(crowd(address, psutil.Process(own.pid), 60 * minutes, known))
    warm = seen.memory[len(seen.memory) // 4 :]
    quarter = max(1, len(warm) // 4)
    early, late = statistics.median(warm[:quarter]), statistics.median(warm[-quarter:])
    row(
        "serve-load", minutes=minutes, clients=CLIENTS, statuses={str(k): v for k, v in sorted(seen.statuses.items())},
        pictures=seen.pictures, aborted=seen.aborted, malformed=seen.malformed, wrong=len(seen.wrong),
        longest_queue=max(seen.queue), queue_bound=QUEUE, mib_after_warm_up=early / 2**20, mib_at_the_end=late / 2**20,
        memory_ratio=late / early,
    )  # fmt: skip
    assert not seen.wrong, seen.wrong[:5]
    assert not [status for status in seen.statuses if status >= 500]
    assert seen.pictures > 20 * minutes
    assert max(seen.queue) <= QUEUE
    assert late < 1.05 * early or minutes < 2, "a short run is all warm-up"


# Speed.


async def busy(own: httpx.AsyncClient, number: int, until: float, done: list[float]) -> None:
    seed = number * 1000
    while time.monotonic() < until:
        answer = await own.post("/v1/images/generations", json={"prompt": f"{number} 2 3", "seed": (seed := seed + 1)})
        answer.raise_for_status()
        done.append(time.monotonic())


async def late(own: httpx.AsyncClient, until: float, grid: int, found: list[float]) -> None:
    """Streams, and the time to the first partial picture over that of as many steps of the whole batch."""
    while time.monotonic() < until - 5:
        await asyncio.sleep(0.2)
        before, began = await steps(own), time.monotonic()
        body = {"prompt": "7 7", "stream": True, "partial_images": 3}
        async with own.stream("POST", "/v1/images/generations", json=body) as answer:
            told = events(answer)
            await anext(told)
            taken, after = time.monotonic() - began, await steps(own)
            async for _ in told:
                pass
        step = (after[0] - before[0]) / (after[1] - before[1])
        found.append(taken / (round(grid / 4) * grid * step))


async def steps(own: httpx.AsyncClient) -> tuple[float, float]:
    """Seconds of all steps, and their number."""
    text = (await own.get("/metrics")).text
    return tuple(float(re.search(rf"tessera_step_seconds_{kind}\{{.*?\}} (\S+)", text)[1]) for kind in ("sum", "count"))


async def traffic(address: str, seconds: float, clients: int, grid: int, also: bool) -> tuple[float, list[float]]:
    """Pictures a second of so many clients that always wait for one; and how late streams among them begin."""
    done, ratios, until = [], [], time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=address, timeout=120) as own:
        others = [late(own, until, grid, ratios)] if also else []
        await asyncio.gather(*others, *(busy(own, i, until, done) for i in range(clients - also)))
    first = until - 0.75 * seconds
    return sum(first < at < until for at in done) / (0.75 * seconds), ratios


def speed(seconds: float = 40) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "middle", 256, 4, 64, 3, 64)
        os.sched_setaffinity(0, {0})
        pipeline = Pipeline.load(run, "cpu")
        prompts, seeds = [f"{i} 2 3" for i in range(16)], list(range(16))
        offline, began = 0, time.perf_counter()
        pipeline.draw(prompts, seeds, pipeline.sampling, 16)
        began = time.perf_counter()
        while time.perf_counter() - began < seconds / 2:
            pipeline.draw(prompts, seeds, pipeline.sampling, 16)
            offline += 16
        offline /= time.perf_counter() - began
        os.sched_setaffinity(0, {1})
        with server(run, 0, "--max-batch", "16") as (address, _, ready):
            served, _ = asyncio.run(traffic(address, seconds, 16, 8, False))
            _, ratios = asyncio.run(traffic(address, seconds, 16, 8, True))
    row(
        "serve-speed", clients=16, offline_pictures_a_second=offline, served_pictures_a_second=served,
        ratio=served / offline,
        first_partial_over_steps_median=statistics.median(ratios), first_partial_over_steps_worst=max(ratios),
        late_requests=len(ratios), seconds_until_ready=ready,
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["load", minutes]:
            load(float(minutes))
        case ["speed", *rest]:
            speed(*map(float, rest))
        case _:
            sys.exit("usage: python bench/serve.py load MINUTES | speed [SECONDS]")
