"""The application: OpenAI's images interface over a Worker. It does not know sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from tessera import __version__
from tessera.config import ServingConfig
from tessera.config.merging import nearest, short
from tessera.errors import TesseraError
from tessera.generate.editing import refuse_edit
from tessera.serve.bench import Bench
from tessera.serve.errors import Refused, asked_wrongly, refused
from tessera.serve.guard import ClientGone, Guard, unless_gone
from tessera.serve.jobs import Job, Stream, job, whole
from tessera.serve.kept import Kept
from tessera.serve.keys import Doorman
from tessera.serve.logs import tell_error
from tessera.serve.measures import Measures
from tessera.serve.orders import Refusal, Sitter
from tessera.serve.pictures import TYPES, drafted
from tessera.serve.schema import Edit, Generation, Images, Model, Models, State, Wanted, Wrong, edit_of, wrong_fields
from tessera.serve.worker import Worker

FILES = ("image", "image[]", "mask")
GONE = 499
"""What the log says of a client that left; nobody gets it."""


class Answers:
    """The routes."""

    def __init__(self, worker: Worker, config: ServingConfig, measures: Measures):
        self.worker, self.config, self.limits, self.measures = worker, config, config.limits, measures
        self.kept = Kept(self.limits.url_seconds, self.limits.url_bytes)
        self.decoding = asyncio.Semaphore(1)

    # What is drawn.

    async def generations(self, wanted: Generation, http: Request) -> Response:
        """Draw pictures of a prompt."""
        return await self.answer("image_generation", wanted, http)

    async def edits(self, http: Request) -> Response:
        """Keep what a mask leaves opaque of a picture, and draw what is transparent. A prior of reading order keeps the
        first codes alone, such as whole rows at the top."""
        async with http.form(max_files=4, max_fields=64, max_part_size=self.limits.max_body) as form:
            wanted = edit_of(_fields(form))
            image, mask = await _file(form, "image", "image[]"), await _file(form, "mask")
        if image is None:
            raise Refused(400, "image is missing: send the picture that is edited as a file.", "image")
        bench = self.bench(wanted.model)
        tokenizer, most = bench.pipeline.image, self.limits.max_upload_pixels
        async with self.decoding:  # one at a time, because a decoded picture is large
            try:
                editing = wanted.editing()
                own = await asyncio.to_thread(
                    drafted, image, mask, editing, tokenizer.pixels, tokenizer.channels, tokenizer.grid, most
                )
                refuse_edit(bench.pipeline.model, own, editing)
            except TesseraError as error:
                raise asked_wrongly(error) from error
        return await self.answer("image_edit", wanted, http, Sitter(own, editing))

    async def answer(self, kind: str, wanted: Wanted, http: Request, sitter: Sitter | None = None) -> Response:
        said = http.scope["tessera"]
        made = job(kind, wanted, self.bench(wanted.model), str(said["client"]), self.limits, sitter)
        self._note(made, wanted, said)
        self.worker.submit(made.bench.name, made.order)
        if wanted.stream:
            return Stream(made, self.worker)
        try:
            link = (lambda name: self._url(http, name)) if wanted.response_format == "url" else None
            images = await unless_gone(http.receive, lambda: whole(made, link, self.kept))
        except ClientGone:
            return Response(status_code=GONE)
        finally:
            self.worker.cancel(made.order)
        return JSONResponse(cast(Images, images).model_dump(exclude_none=True))

    def _note(self, made: Job, wanted: Wanted, said: dict[str, object]) -> None:
        """What the log says of a job."""
        request = made.order.request
        said |= {"model": made.bench.name, "pictures": request.count, "seed": request.seed, "tokens": made.text}
        said |= {"stream": bool(wanted.stream), **({"prompt": request.prompt} if self.config.log_prompts else {})}

    def _url(self, http: Request, name: str) -> str:
        base = self.config.public_url.rstrip("/") or str(http.base_url).rstrip("/")
        return f"{base}/pictures/{name}"

    async def picture(self, name: str) -> Response:
        """A picture that was asked for as a url."""
        found = self.kept.get(name)
        if found is None:
            raise Refused(404, "This picture does not exist, or its URL has expired.", code="picture_not_found")
        ending, content = found
        return Response(content, media_type=TYPES[ending])

    # What there is.

    def bench(self, name: str | None) -> Bench:
        """The model of this name, or the first one where no name is given. Raises Refused for an unknown name."""
        benches = self.worker.benches
        if not benches:
            raise Refused(404, "No model has been trained yet.", "model", "model_not_found")
        if name is None:
            return next(iter(benches.values()))
        if name not in benches:
            near = nearest(name, benches) or "."
            known = f" Served: {', '.join(benches)}."
            raise Refused(404, f"The model '{short(name, '')}' does not exist{near}{known}", "model", "model_not_found")
        return benches[name]

    async def models(self) -> Models:
        """The runs that are served."""
        return Models(data=[_model(bench) for bench in self.worker.benches.values()])

    async def model(self, name: str) -> Model:
        """One of them."""
        return _model(self.bench(name))

    # How it goes.

    async def health(self) -> State:
        """Whether the process lives."""
        return State(status="ok")

    async def ready(self) -> Response:
        """Whether it takes requests."""
        if self.worker.draining:
            raise Refused(503, "The server is about to end.", code="draining", after=5)
        if not self.worker.alive:
            raise Refused(503, "The thread that draws does not run.", code="not_ready", after=5)
        return JSONResponse({"status": "ready"})

    async def metrics(self) -> Response:
        """For Prometheus."""
        return Response(self.measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _model(bench: Bench) -> Model:
    pipeline = bench.pipeline
    return Model(
        id=bench.name, created=bench.created, side=pipeline.image.pixels, codes=bench.total,
        prompt_tokens=pipeline.prompts.length,
    )  # fmt: skip


def _fields(form: FormData) -> dict[str, str]:
    """The fields of a form that are not files. Raises Refused for one that is there twice, or is a file."""
    found: dict[str, str] = {}
    for name, value in form.multi_items():
        if name in FILES:
            continue
        if not isinstance(value, str) or name in found:
            raise Refused(400, f"{short(name, '')} is a file, or there twice; send it once, as text.", short(name, ""))
        found[name] = value
    return found


async def _file(form: FormData, *names: str) -> bytes | None:
    """The file under one of the names. Raises Refused where there are several, or a text."""
    found = [value for name in names for value in form.getlist(name)]
    if not found:
        return None
    if len(found) > 1:
        raise Refused(400, f"There are {len(found)} files for {names[0]}; one can be used.", names[0])
    if not isinstance(found[0], UploadFile):
        raise Refused(400, f"{names[0]} is a text; send a file.", names[0])
    return await found[0].read()


# The whole.

Responses = dict[int | str, dict[str, object]]
WRONG: Responses = {status: {"model": Wrong} for status in (400, 401, 403, 404, 405, 408, 413, 429, 500, 503)}
DRAWN: Responses = {
    200: {"model": Images, "description": "The pictures; with stream, events.", "content": {"text/event-stream": {}}}
}
FORM = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": {
            **Edit.model_json_schema(),
            "properties": {
                **Edit.model_json_schema()["properties"],
                "image": {"type": "string", "format": "binary", "description": "The picture that is edited."},
                "mask": {"type": "string", "format": "binary", "description": "Transparent where it is drawn anew."},
            },
            "required": ["image", "prompt"],
        }}},
    }
}  # fmt: skip


def application(worker: Worker, config: ServingConfig, doorman: Doorman, measures: Measures) -> ASGIApp:
    """The routes, behind their guard."""
    answers = Answers(worker, config, measures)
    app = FastAPI(title="Tessera", version=__version__, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    post, get = app.post, partial(app.get, responses=WRONG)
    post("/v1/images/generations", responses={**DRAWN, **WRONG})(answers.generations)
    post("/v1/images/edits", responses={**DRAWN, **WRONG}, openapi_extra=FORM)(answers.edits)
    get("/v1/models")(answers.models)
    get("/v1/models/{name}")(answers.model)
    get("/health")(answers.health)
    get("/ready", response_model=State)(answers.ready)
    app.get("/pictures/{name}", responses={**_as(*TYPES.values()), **WRONG}, response_class=Response)(answers.picture)
    app.get("/metrics", responses={**_as("text/plain"), **WRONG}, response_class=Response)(answers.metrics)
    app.add_exception_handler(RequestValidationError, _misfits)
    for kind in (HTTPException, Refusal, TesseraError, Exception):
        app.add_exception_handler(kind, _wrong)
    app.openapi = lambda: _documented(app)  # type: ignore[method-assign]
    return Guard(app, doorman, config.limits, measures)


def _as(*types: str) -> Responses:
    """An answer that is not JSON."""
    return {200: {"content": {kind: {} for kind in types}}}


async def _wrong(http: Request, error: Exception) -> Response:
    wrong = refused(error)
    if wrong.status_code >= 500 and not isinstance(error, HTTPException | Refusal):
        tell_error("request failed", error, **http.scope["tessera"])
    return wrong.response()


async def _misfits(http: Request, error: Exception) -> Response:
    errors = cast(RequestValidationError, error).errors()
    return wrong_fields([dict(e) for e in errors], set(Generation.model_fields)).response()


def _documented(app: FastAPI) -> dict[str, object]:
    """Its OpenAPI schema, without the form of errors that is not ours."""
    schema = FastAPI.openapi(app)
    for path in schema["paths"].values():
        for operation in path.values():
            cast(Mapping, operation)["responses"].pop("422", None)
    return schema
