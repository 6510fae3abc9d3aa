"""The pages and the files beside them, as one application. It knows no server and no guard."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from nicegui import ui
from starlette.responses import RedirectResponse, Response

from tessera.errors import TesseraError
from tessera.files.regular import read_regular
from tessera.studio.gate import ASSETS
from tessera.studio.pages import draw, edit, folder, judge, train
from tessera.studio.runs import PREVIEW
from tessera.studio.studio import Studio

LARGEST = 2**26
"""Bytes of a file that is shown."""
SEALED = {"content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"}
"""For pages that lie in run folders, which anybody may have written: nothing in them runs."""
PAGES = {
    "report": "report.html",
    "evaluation": "evaluation/evaluation.html",
    "short": "evaluation-short/evaluation.html",
}


def site(studio: Studio, work: Callable[[], Awaitable[None]]) -> FastAPI:
    """The application; `work` goes on beside it from its beginning to its end."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lambda app: _beside(work))
    files(app, studio)
    for path, page in (("/folder", folder), ("/train", train), ("/draw", draw), ("/edit", edit), ("/judge", judge)):
        ui.page(path, title=f"{page.TITLE} · Tessera Studio")(page.page(studio))
    # NiceGUI looks for its server among all objects, torch's deprecated names included.
    warnings.filterwarnings("ignore", "`torch.distributed.reduce_op`", FutureWarning)
    ui.run_with(
        app, title="Tessera Studio", favicon=ASSETS / "icon.svg", dark=None, tailwind=False, show_welcome_message=False,
        reconnect_timeout=20.0, gzip_middleware_factory=None,
    )  # fmt: skip
    return app


@asynccontextmanager
async def _beside(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def files(app: FastAPI, studio: Studio) -> None:
    """What pages show beside themselves. Every name is checked; nothing else of the disk is served."""

    @app.get("/")
    async def first() -> Response:
        return RedirectResponse("/draw" if studio.drawable() else "/folder", 307)

    @app.get("/studio/gallery/{name}")
    def picture(name: str, download: bool = False) -> Response:
        return _file(lambda: studio.gallery.content(name), "image/png", name if download else "")

    @app.get("/studio/preview/{run}/{stage}/{name}")
    def preview(run: str, stage: str, name: str) -> Response:
        inner = {"prior": "samples", "tokenizer": "tokenizer/samples"}.get(stage, "")
        good = inner and PREVIEW.fullmatch(name)
        return _file(lambda: read_regular(_below(studio, run, f"{inner}/{name}" if good else ""), LARGEST), "image/png")

    @app.get("/studio/page/{run}/{name}")
    def page(run: str, name: str) -> Response:
        answer = _file(
            lambda: read_regular(_below(studio, run, PAGES.get(name, "")), LARGEST), "text/html; charset=utf-8"
        )
        answer.headers.update(SEALED)
        return answer

    @app.get("/studio/theme.css")
    def theme() -> Response:
        return Response((ASSETS / "theme.css").read_text("utf-8"), media_type="text/css")

    @app.get("/studio/brush.js")
    def brush() -> Response:
        return Response((ASSETS / "brush.js").read_text("utf-8"), media_type="text/javascript")


def _below(studio: Studio, run: str, name: str) -> Path:
    """A file in a run's folder, links followed. Raises TesseraError where it lies elsewhere."""
    folder = studio.places.run(run)
    path = (folder / name).resolve()
    if not name or not path.is_relative_to(folder.resolve()):
        raise TesseraError("The run has no such file.")
    return path


def _file(read: Callable[[], bytes], kind: str, download: str = "") -> Response:
    try:
        content = read()
    except (TesseraError, OSError):
        return Response("File not found.", 404, media_type="text/plain")
    named = {"content-disposition": f'attachment; filename="{download}"'} if download else {}
    return Response(content, media_type=kind, headers={"cache-control": "private, max-age=60", **named})
