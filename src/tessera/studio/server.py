"""The process: the server's interface below /v1 and the pages at /, over one worker. It does not know what the pages
show."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from tessera.config.studio import StudioConfig
from tessera.machine.device import choose_device
from tessera.serve import logs
from tessera.serve.app import application
from tessera.serve.keys import doorman
from tessera.serve.measures import Measures
from tessera.serve.server import Server, bound, prepared
from tessera.serve.worker import Worker
from tessera.studio.catalogue import Catalogue
from tessera.studio.drawing import Easel
from tessera.studio.gallery import Gallery
from tessera.studio.gate import Gate
from tessera.studio.places import Places
from tessera.studio.processes import Processes
from tessera.studio.site import Studio, site

OWN = "studio"
"""Folder of the Studio among the runs."""
INTERFACE = ("/v1/", "/pictures/")
MACHINES = ("/health", "/ready", "/metrics", "/openapi.json")
"""Paths of `tessera serve`."""
LOOK = 3.0
"""Seconds between two looks for new checkpoints."""


class Floors:
    """Sends each request to the interface or to the pages; each has a guard of its own."""

    def __init__(self, interface: ASGIApp, pages: ASGIApp):
        self.interface, self.pages = interface, pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        asks = scope["type"] == "http" and (path.startswith(INTERFACE) or path in MACHINES)
        await (self.interface if asks else self.pages)(scope, receive, send)


class PageServer(Server):
    """Open pages do not keep it from ending; only what is being drawn does."""

    @property
    def answering(self) -> bool:
        return False


def serve(config: StudioConfig, ready: Callable[[str, list[str]], None]) -> None:
    """Show the Studio until a signal ends it. What is wrong with the settings is said before anything is read."""
    places, guard = Places.of(config.runs, config.pictures), doorman(config.api_key_file)
    choose_device(config.device)
    own = bound(config.host, config.port)
    logs.begin()
    measures, worker = Measures(), Worker({}, config.threads)
    catalogue = Catalogue(places, config, worker, measures)
    folder = places.runs / OWN
    studio = Studio(
        places, config, Easel(worker, config.limits), Gallery(folder / "gallery"), Processes(folder), catalogue
    )
    pages = Gate(site(studio, lambda: looking(catalogue)), guard, config.limits.max_upload, config.public_url)
    app = Floors(application(worker, config, guard, measures), pages)
    with own:
        server = prepared(worker, config, app, ready, own, PageServer, "wsproto", "on")
        worker.start()
        try:
            server.run([own])
        finally:
            worker.stop()


async def looking(catalogue: Catalogue) -> None:
    """Read new checkpoints as they come, until it is cancelled."""
    while True:
        with contextlib.suppress(OSError):  # a folder that went away while it was read
            await asyncio.to_thread(catalogue.refresh)
        await asyncio.sleep(LOOK)
