"""The process: it loads runs, listens, and ends when everything asked for is drawn. It does not know routes."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Literal

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tessera.config import Limits, ServingConfig
from tessera.errors import ConfigError
from tessera.generate.defaults import find
from tessera.generate.judge import CLIPJudge, Judge, OwnJudge
from tessera.generate.pipeline import Pipeline
from tessera.generate.weights import compiled
from tessera.machine.device import choose_device, compiles
from tessera.serve import logs
from tessera.serve.app import application
from tessera.serve.bench import Bench
from tessera.serve.keys import doorman
from tessera.serve.measures import Measures
from tessera.serve.worker import Worker

HEAD_SECONDS = 20
"""In which the head of a request must have arrived."""


def names(runs: Sequence[str]) -> dict[str, str]:
    """The name under which each run is asked for: that of its folder. Raises ConfigError where two have the same."""
    found: dict[str, str] = {}
    for run in runs:
        find(run)
        name = Path(run).expanduser().resolve().name
        if name in found:
            raise ConfigError(f"{found[name]} and {run} would both be the model '{name}'; rename one of the folders.")
        found[name] = run
    return found


def load(name: str, run: str, config: ServingConfig, measures: Measures) -> Bench:
    """A run, ready to draw; with the judge that its folder holds, or itself for one."""
    pipeline = Pipeline.load(run, config.device, config.weights, config.compile)
    folder = Path(run).expanduser() / "judge"
    own = OwnJudge(pipeline.model, pipeline.prompts)
    judge: Judge = CLIPJudge.load(folder, config.device) if folder.is_dir() else own
    wanted = compiles(config.compile, choose_device(config.device))
    decodes = partial(compiled, pipeline.model) if wanted else None
    bench = Bench(name, pipeline, judge, config.max_batch, config.limits.max_queue, measures, decodes)
    taken = lambda: len(bench.seats.taken) - bench.seats.free
    measures.watch(name, config.max_batch, config.limits.max_queue, taken, lambda: bench.line.waiting)
    return bench


def bound(host: str, port: int) -> socket.socket:
    """A socket with its address, which does not listen yet. Raises ConfigError where that cannot be had."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        own = socket.socket(family, kind, number)
        if os.name == "posix":
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(address)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened at: {error.strerror or error}. Give another --host or --port."
        ) from error
    return own


class Connection(H11Protocol):
    """A connection that is closed where there are too many, or where the head of a request does not come."""

    most = Limits.max_connections
    late: asyncio.TimerHandle | None = None
    upgraded = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self.upgraded = True
        super().handle_websocket_upgrade(event)

    def _watch(self) -> None:
        """Between requests the clock runs; a WebSocket may be silent."""
        if self.upgraded or (self.cycle is not None and not self.cycle.response_complete):
            self._unwatch()
        elif self.late is None:
            self.late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _unwatch(self) -> None:
        if self.late is not None:
            self.late.cancel()
            self.late = None


class Server(uvicorn.Server):
    """Ends in two steps: after a signal no request is taken, and when all are answered it stops. A second signal stops
    it at once."""

    def __init__(self, config: uvicorn.Config, worker: Worker, seconds: float, ready: Callable[[], None]):
        super().__init__(config)
        self.worker, self.seconds, self.ready, self.until = worker, seconds, ready, float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.until < float("inf"):
            self.should_exit = self.force_exit = True
        self.until = min(self.until, time.monotonic() + self.seconds)

    async def on_tick(self, counter: int) -> bool:
        if self.until < float("inf"):
            if not self.worker.draining:
                self.worker.drain()
            over = time.monotonic() > self.until
            if over:
                self.worker.stop()
            self.should_exit |= over or (not self.worker.busy and not self.answering)
        return await super().on_tick(counter)

    @property
    def answering(self) -> bool:
        """Whether somebody still waits for an answer."""
        return bool(self.server_state.tasks)


def serve(runs: Sequence[str], config: ServingConfig, ready: Callable[[str, list[str]], None]) -> None:
    """Serve runs until a signal ends it. `ready` is called with the address and the models' names. What is wrong with
    the settings is said before weights are read."""
    found, guard = names(runs), doorman(config.api_key_file)
    choose_device(config.device)
    own = bound(config.host, config.port)
    logs.begin()
    measures = Measures()
    with own:
        worker = Worker({name: load(name, run, config, measures) for name, run in found.items()}, config.threads)
        server = prepared(worker, config, application(worker, config, guard, measures), ready, own)
        worker.start()
        try:
            server.run([own])
        finally:
            worker.stop()


def prepared(
    worker: Worker, config: ServingConfig, app: object, ready: Callable[[str, list[str]], None], own: socket.socket,
    kind: type[Server] = Server, ws: str = "none", lifespan: Literal["on", "off"] = "off",
) -> Server:  # fmt: skip
    """The server of an application, which may also speak WebSocket (`ws`, uvicorn's name of a library) and have a
    beginning and an end."""
    protocol = type("Connection", (Connection,), {"most": config.limits.max_connections})
    settings = uvicorn.Config(
        app, http=protocol, ws=ws, lifespan=lifespan, log_config=None, access_log=False, server_header=False,  # type: ignore[arg-type]
        timeout_keep_alive=15, timeout_graceful_shutdown=10, h11_max_incomplete_event_size=32_768, proxy_headers=False,
        backlog=min(2048, 4 * config.limits.max_connections), workers=1,
    )  # fmt: skip
    host, port = own.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    return kind(settings, worker, config.limits.drain_seconds, lambda: ready(address, list(worker.benches)))
