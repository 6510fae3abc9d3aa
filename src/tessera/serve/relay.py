"""Requests that another process answers: handed over whole, answered message by message. It knows no cluster and no
models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tessera.serve.errors import Refused
from tessera.serve.guard import ClientGone, unless_gone

Answer = Callable[[Scope, bytes], AsyncGenerator[Message, None]]
"""A request's scope and body -> the messages of its answer; closing it is the client that leaves."""
PARTS = (
    "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers",
    "client", "server",
)  # fmt: skip
"""What of a scope can travel."""


async def answered(app: ASGIApp, scope: Scope, body: bytes) -> AsyncGenerator[Message, None]:
    """What an application answers to a whole request. Raises what the application raises."""
    sent: asyncio.Queue[Message | None] = asyncio.Queue()
    asked, gone = asyncio.Event(), asyncio.Event()

    async def receive() -> Message:
        if asked.is_set():
            await gone.wait()
            return {"type": "http.disconnect"}
        asked.set()
        return {"type": "http.request", "body": body, "more_body": False}

    async def work() -> None:
        try:
            await app(dict(scope), receive, sent.put)
        finally:
            sent.put_nowait(None)

    task = asyncio.create_task(work())
    try:
        while (message := await sent.get()) is not None:
            yield message
        await task
    finally:
        gone.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Relay:
    """An application whose requests are answered elsewhere. `lost` says what a client is told of an error on the way,
    or raises it."""

    def __init__(self, answer: Answer, lost: Callable[[Exception], Refused]):
        self.answer, self.lost = answer, lost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        begun = False
        body = await whole(receive)

        async def work() -> None:
            nonlocal begun
            held = []  # the head of an answer waits for its first part: until then it may become another
            async with aclosing(self.answer({part: scope[part] for part in PARTS if part in scope}, body)) as messages:
                async for message in messages:
                    held.append(message)
                    if message["type"] == "http.response.body":
                        begun = True
                        for each in held:
                            await send(each)
                        held.clear()

        try:
            await unless_gone(receive, work)
        except ClientGone:
            return
        except Exception as error:
            wrong = self.lost(error)
            if not begun:
                raise wrong from error
            raise


async def whole(receive: Receive) -> bytes:
    """The body of a request. Whoever bounds it stands before."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
