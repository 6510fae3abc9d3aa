"""A server in this process, of a tiny model with random weights whose prompts are numbers."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import openai
import torch
from PIL import Image

from conftest import MODERN, TINY_DVAE, prior
from tessera.config import Limits, ServingConfig
from tessera.generate.judge import Judge, OwnJudge
from tessera.generate.pipeline import Pipeline
from tessera.generate.weights import prepare
from tessera.models.dvae import DiscreteVAE
from tessera.models.text_to_image import TextToImage
from tessera.serve.app import application
from tessera.serve.bench import Bench
from tessera.serve.keys import doorman
from tessera.serve.measures import Measures
from tessera.serve.server import Server, bound, prepared
from tessera.serve.worker import Worker
from tessera.tokens.image import Frozen
from tessera.tokens.text import Numbers


class AnyText(Numbers):
    """Takes any text: a token for each of its first five letters."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 20 for letter in text[:5]]


def pipeline(text: Numbers | None = None, model: TextToImage | None = None) -> Pipeline:
    """Sixteen codes, 16 pixels, prompts of at most five numbers below 20."""
    model = prior(MODERN, image_vocab=27) if model is None else model
    with torch.no_grad():
        model.image_head.weight.mul_(8)  # so that prompt and guidance matter beside chance
    torch.manual_seed(0)
    return Pipeline(prepare(model), text or Numbers(20), Frozen(DiscreteVAE(TINY_DVAE).eval()), "tiny")


def bench(own: Pipeline, judge: Judge | None = None, seats: int = 4, queue: int = 64, name: str = "tiny") -> Bench:
    return Bench(name, own, judge or OwnJudge(own.model, own.prompts), seats, queue, Measures())


class Served:
    """What a test sees of a server."""

    def __init__(self, server: Server, worker: Worker, address: str, measures: Measures):
        self.server, self.worker, self.address, self.measures = server, worker, address, measures
        self.bench = next(iter(worker.benches.values()))

    def client(self, key: str = "none", **options) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=key, max_retries=0, timeout=60, **options)

    def slow_down(self, seconds: float) -> None:
        """Let each step take at least so long."""
        step = self.bench.seats.step

        def slow() -> None:
            time.sleep(seconds)
            step()

        self.bench.seats.step = slow  # type: ignore[method-assign]


@contextmanager
def serving(
    benches: list[Bench] | None = None, limits: Limits | None = None, keys: str = "", **settings
) -> Iterator[Served]:
    """A server that listens, in a thread of this process."""
    limits = limits or Limits()
    measures = Measures()
    benches = benches or [bench(pipeline(), queue=limits.max_queue)]
    for own in benches:
        own.measures = measures
        measures.watch(own.name, len(own.seats.taken), own.line.most, lambda: 0, lambda own=own: own.line.waiting)
    config = ServingConfig(api_key_file=keys, limits=limits, **settings)
    config.check()
    worker = Worker({own.name: own for own in benches})
    listening, address = threading.Event(), []

    def ready(url: str, models: list[str]) -> None:
        address.append(url)
        listening.set()

    with bound("127.0.0.1", 0) as own:
        server = prepared(worker, config, application(worker, config, doorman(keys), measures), ready, own)
        thread = threading.Thread(target=server.run, args=([own],), daemon=True)
        worker.start()
        thread.start()
        assert listening.wait(20)
        try:
            yield Served(server, worker, address[0], measures)
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)
            worker.stop()
            assert not thread.is_alive()


def opened(content: str | bytes | None) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(content) if isinstance(content, str) else content or b""))


def picture_file(mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> bytes:
    own = Image.radial_gradient("L").resize(size).convert(mode)
    own.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def mask_file(rows: int, size: int = 16, hole: bool = False) -> bytes:
    own = Image.new("RGBA", (size, size), (0, 0, 0, 255))
    own.paste((0, 0, 0, 0), (0, rows, size // 2 if hole else size, size))
    own.save(file := io.BytesIO(), "PNG")
    return file.getvalue()
