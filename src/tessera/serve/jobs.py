"""What a request asks for becomes an order, and what is told of that becomes an answer. It does not know routes."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tessera.config import Limits, refuse_order
from tessera.errors import CheckpointError, TesseraError
from tessera.generate.editing import vary_count
from tessera.generate.picture import Picture
from tessera.serve.bench import Bench
from tessera.serve.errors import Refused, asked_wrongly, refused
from tessera.serve.kept import Kept
from tessera.serve.orders import Failed, Made, Order, Shown, Sitter, Told
from tessera.serve.pictures import Encoding, side_of
from tessera.serve.schema import Drawn, Images, Usage, Wanted
from tessera.serve.worker import Worker

QUIET = 15.0
"""Seconds after which a stream with nothing to say sends a comment, so that nobody on the way closes it."""


class Inbox:
    """What the worker's thread tells, in the event loop."""

    def __init__(self) -> None:
        self.loop, self.told = asyncio.get_running_loop(), asyncio.Queue[Told]()

    def __call__(self, event: Told) -> None:
        self.loop.call_soon_threadsafe(self.told.put_nowait, event)


@dataclass(frozen=True)
class Job:
    """One request that is being answered."""

    kind: str
    """image_generation or image_edit."""
    bench: Bench
    order: Order
    inbox: Inbox
    encoding: Encoding
    count: int
    """Pictures that are answered."""
    text: int
    """Tokens of the prompt."""
    given: int
    """Codes of the picture that is kept."""

    def usage(self, pictures: int) -> Usage:
        """Of so many pictures of this request that were drawn."""
        return Usage.of(self.text, self.given, pictures * (self.bench.total - self.given))

    @property
    def drawn(self) -> int:
        """Pictures that are drawn: with best_of more than are answered."""
        return self.order.request.count

    async def encoded(self, picture: Picture) -> bytes:
        return await asyncio.to_thread(self.encoding, picture)

    @property
    def background(self) -> Literal["opaque", "transparent"]:
        return "transparent" if self.bench.pipeline.image.channels in (2, 4) else "opaque"


def job(kind: str, wanted: Wanted, bench: Bench, client: str, limits: Limits, sitter: Sitter | None = None) -> Job:
    """Raises Refused in a sentence where what is wanted cannot be drawn."""
    refuse(wanted, bench, limits)
    pipeline, inbox = bench.pipeline, Inbox()
    try:
        side = side_of(wanted.size, pipeline.image.pixels, limits.max_side)
        request = wanted.drawing(pipeline.sampling, secrets.randbelow(2**32))
        refuse_order(request.sampling, pipeline.model.config)
        pipeline.prompts.tokens([request.prompt], request.truncate)
    except CheckpointError:
        raise
    except TesseraError as error:
        raise asked_wrongly(error) from error
    quality = 100 if wanted.output_compression is None else wanted.output_compression
    keep = (wanted.n or 1) if wanted.best_of else 0
    deadline = time.monotonic() + limits.max_seconds
    order = Order(request, client, inbox, wanted.partial_images or 0, keep, sitter, deadline)
    text = min(len(pipeline.prompts.encode(request.prompt)), pipeline.prompts.length)
    given = codes_kept(sitter, bench.total) if sitter else 0
    encoding = Encoding(side, wanted.output_format or "png", quality)
    return Job(kind, bench, order, inbox, encoding, keep or request.count, text, given)


def codes_kept(sitter: Sitter, total: int) -> int:
    """How many of the codes of a picture are not drawn anew."""
    left = int((~sitter.draft.drawn).sum())
    return left - min(left, vary_count(sitter.config.vary, total))


def refuse(wanted: Wanted, bench: Bench, limits: Limits) -> None:
    """Raise Refused where options contradict each other, the bounds, or what the run has."""
    letters, n, best = len(wanted.prompt), wanted.n or 1, wanted.best_of or 0
    opaque, link = bench.pipeline.image.channels in (1, 3), wanted.response_format == "url"
    wrong = (
        (letters > limits.max_prompt, f"prompt has {letters} letters; at most {limits.max_prompt} are read."),
        (n > limits.max_n, f"n is {n}; a request may ask for at most {limits.max_n} pictures."),
        (best > limits.max_best_of, f"best_of is {best}; at most {limits.max_best_of} pictures are drawn for it."),
        (0 < best < n, f"best_of is {best}, less than the {n} pictures to keep (n)."),
        (best and wanted.partial_images, "partial_images shows pictures that best_of may not keep; leave one out."),
        (wanted.partial_images and not wanted.stream, "partial_images are shown in a stream; set stream, too."),
        (wanted.stream and link, "response_format is url; a stream sends pictures whole."),
        (link and not limits.url_bytes, "response_format is url; this server keeps no pictures: ask for b64_json."),
        (opaque and wanted.background == "transparent", "background is transparent; this model draws opaque pictures."),
    )
    for holds, sentence in wrong:
        if holds:
            raise Refused(400, sentence, sentence.partition(" ")[0])


async def told(job: Job, quiet: float = 1e9) -> AsyncIterator[Shown | Made | None]:
    """What is told of a job until its last picture; None where nothing happened for a while. Raises what went wrong."""
    made = 0
    while made < job.count:
        try:
            async with asyncio.timeout(quiet):
                event = await job.inbox.told.get()
        except TimeoutError:
            yield None
            continue
        if isinstance(event, Failed):
            raise refused(event.error) from event.error
        made += isinstance(event, Made)
        yield event


async def whole(job: Job, link: Callable[[str], str] | None, kept: Kept) -> Images:
    """All pictures at once; `link` makes urls of names."""
    found: dict[int, Drawn] = {}
    async for event in told(job):
        if isinstance(event, Made):
            picture, content = event.picture, await job.encoded(event.picture)
            where = {"url": link(kept.put(content, job.encoding.format))} if link else {"b64_json": _base64(content)}
            found[event.index] = Drawn(seed=picture.seed, score=picture.score, **where)
    return Images(
        created=int(time.time()), data=[found[i] for i in sorted(found)], usage=job.usage(job.drawn),
        output_format=job.encoding.format, size=_size(job), background=job.background, model=job.bench.name,
    )  # fmt: skip


async def streamed(job: Job) -> AsyncIterator[bytes]:
    """Server-sent events: unfinished pictures in order, and each picture when it is finished."""
    try:
        async for event in told(job, QUIET):
            if event is None:
                yield b": still drawing\n\n"
                continue
            last = isinstance(event, Made)
            said: dict[str, object] = {
                "type": f"{job.kind}.{'completed' if last else 'partial_image'}",
                "b64_json": _base64(await job.encoded(event.picture)),
                "created_at": int(time.time()), "output_format": job.encoding.format, "size": _size(job),
                "background": job.background, "quality": "auto", "index": event.index, "seed": event.picture.seed,
            }  # fmt: skip
            if isinstance(event, Made):
                others = 0 if event.index else job.drawn - job.count  # the first counts those that are not kept
                said["usage"] = job.usage(1 + others).model_dump()
            else:
                said["partial_image_index"] = event.number
            yield f"event: {said['type']}\ndata: {json.dumps(said)}\n\n".encode()
    except Refused as wrong:
        yield f"event: error\ndata: {json.dumps({'type': 'error', **wrong.body()})}\n\n".encode()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _size(job: Job) -> str:
    return f"{job.encoding.side}x{job.encoding.side}"


class Stream(StreamingResponse):
    """Events of a job, which is cancelled when the client leaves, or never listened."""

    def __init__(self, job: Job, worker: Worker):
        super().__init__(streamed(job), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self.job, self.worker = job, worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.worker.cancel(self.job.order)
