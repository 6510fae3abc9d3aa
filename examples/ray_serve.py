"""Trained runs on several machines, or several GPUs of one: the server of `tessera serve` as a Ray Serve deployment,
whose replicas come and go with the number of requests.

    pip install 'tessera-t2i[serve,ray]'
    python examples/ray_serve.py runs/birds --min-replicas 1 --max-replicas 4 --gpus 1
    python examples/ray_serve.py runs/birds --cluster auto --host 0.0.0.0 --api-key-file keys  # on a cluster's head

A door answers clients: it looks at keys and sizes, and hands each request to a replica, which draws as `tessera serve`
does. Where a replica dies, the requests on it are answered with 503, which OpenAI's clients ask again by themselves.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, fields, replace
from typing import Annotated

from annotated_types import Ge, Le

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody

from tessera.cli.arguments import options
from tessera.cli.screen import say
from tessera.cli.serve import ServeRunsConfig
from tessera.config import ServingConfig
from tessera.errors import ConfigError, TesseraError, install

try:
    import ray
    from ray import exceptions, serve
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

    from tessera.serve import logs
    from tessera.serve.app import application
    from tessera.serve.errors import Refused
    from tessera.serve.guard import Guard
    from tessera.serve.keys import doorman
    from tessera.serve.measures import Measures
    from tessera.serve.relay import Relay, answered
    from tessera.serve.server import load, names
    from tessera.serve.worker import Worker
except ImportError as error:
    sys.exit(f"A package is not installed ({error}): {install('serve,ray')}.")

LOST = (exceptions.RayActorError, exceptions.WorkerCrashedError, DeploymentUnavailableError, ReplicaUnavailableError)


@dataclass(frozen=True, kw_only=True)
class RayConfig(ServeRunsConfig):
    """Serve trained runs with Ray Serve, to any client of OpenAI's images interface."""

    min_replicas: Annotated[int, Ge(1), Le(1024)] = 1
    """Processes that draw when nobody asks."""
    max_replicas: Annotated[int, Ge(1), Le(1024)] = 4
    """Processes that draw when many ask."""
    cpus: Annotated[float, Ge(0), Le(1024)] = 1.0
    """Cores that Ray keeps for each replica."""
    gpus: Annotated[float, Ge(0), Le(64)] = 0.0
    """GPUs that Ray keeps for each replica; 0.5 lets two share one."""
    cluster: str = ""
    """Address of a Ray cluster that runs, or auto for the one of this machine; without it a Ray of its own begins."""

    def rules(self) -> None:
        super().rules()
        if self.max_replicas < self.min_replicas:
            raise ConfigError(f"max-replicas is {self.max_replicas}, less than min-replicas ({self.min_replicas}).")


class Runs:
    """A replica: all runs, and the thread that draws."""

    def __init__(self, runs: tuple[str, ...], config: ServingConfig):
        logs.begin()
        measures = Measures()
        benches = {name: load(name, run, config, measures) for name, run in names(runs).items()}
        self.worker = Worker(benches, config.threads)
        self.app = application(self.worker, config, doorman(config.api_key_file), measures)
        self.worker.start()

    async def answer(self, scope: dict, body: bytes) -> AsyncGenerator[dict, None]:
        async for message in answered(self.app, scope, body):
            yield message

    def check_health(self) -> None:
        """Called by Ray; a replica whose thread ended is replaced."""
        if not self.worker.alive:
            raise RuntimeError("the thread that draws does not run")

    def __del__(self) -> None:
        """Called by Ray when all requests are answered, or the time for that is over."""
        self.worker.stop()


@serve.ingress()
class Door:
    """What clients meet."""

    def __init__(self, runs: serve.handle.DeploymentHandle, config: ServingConfig):
        logs.begin()
        self.runs, self.config = runs.options(stream=True), config

    def __serve_build_asgi_app__(self) -> Guard:
        relay = Relay(self.answer, lost)
        return Guard(relay, doorman(self.config.api_key_file), self.config.limits, Measures())

    async def answer(self, scope: dict, body: bytes) -> AsyncGenerator[dict, None]:
        made = self.runs.answer.remote(scope, body)
        try:
            async for message in made:
                yield message
        finally:
            made.cancel()


def lost(error: Exception) -> Refused:
    """What a client is told where no replica answers."""
    if isinstance(error, BackPressureError):
        return Refused(429, "Too many requests wait for all replicas; try again later.", after=2)
    if isinstance(error, LOST) or isinstance(getattr(error, "cause", None), LOST):
        return Refused(
            503, "The process that drew this ended; ask again, another one answers.", code="replica", after=1
        )
    raise error


def deployed(config: RayConfig) -> serve.Application:
    """The door, with the replicas behind it."""
    plain = ServingConfig(**{f.name: getattr(config, f.name) for f in fields(ServingConfig)})
    plain = replace(plain, limits=replace(plain.limits, url_bytes=0))  # one replica does not have another's pictures
    scale = {"min_replicas": config.min_replicas, "max_replicas": config.max_replicas}
    runs = serve.deployment(
        Runs, name="Runs", ray_actor_options={"num_cpus": config.cpus, "num_gpus": config.gpus},
        autoscaling_config={**scale, "target_ongoing_requests": config.max_batch},
        max_ongoing_requests=config.limits.max_queue, max_queued_requests=config.limits.max_queue,
        graceful_shutdown_timeout_s=config.limits.drain_seconds, graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=2, health_check_timeout_s=30,
    )  # fmt: skip
    door = serve.deployment(
        Door, name="Door", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=config.limits.max_connections,
        graceful_shutdown_timeout_s=config.limits.drain_seconds,
    )  # fmt: skip
    return door.bind(runs.bind(config.runs, plain), plain)


def main(args: list[str]) -> None:
    config = options(RayConfig, args, "examples/ray_serve.py")
    served = names(config.runs)
    doorman(config.api_key_file)
    ended = threading.Event()
    here = {} if config.cluster else {"include_dashboard": False}
    ray.init(config.cluster or None, configure_logging=False, log_to_driver=False, **here)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: ended.set())
    serve.start(http_options={"host": config.host, "port": config.port, "location": "HeadOnly"})
    try:
        serve.run(deployed(config), name="tessera", route_prefix="/")
        say(f"Serving {', '.join(served)} at http://{config.host}:{config.port}/v1")
        ended.wait()
        serve.delete("tessera")  # what is being drawn is finished; shutdown alone would break it off
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except TesseraError as error:
        sys.exit(str(error))
