"""What happens around every request: who asks, how much is read and how long, what is counted and written down. It does
not know what is asked."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tessera.config import Limits
from tessera.serve.errors import Refused
from tessera.serve.keys import Doorman
from tessera.serve.logs import tell, tell_error
from tessera.serve.measures import Measures

PATHS = (
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/models",
    "/pictures",
    "/health",
    "/ready",
    "/metrics",
    "/openapi.json",
)
OPEN = ("/health", "/ready", "/pictures/")
"""Paths that need no key; the names of pictures are keys themselves."""
UPLOADS = "/v1/images/edits"
DRAINED = 8
"""How many times the bytes that are accepted are still read, so that the client hears the answer."""
SPARE = 30.0
"""Seconds beyond a request's time in which its answer must be taken off."""


class Guard:
    """The outermost ASGI application."""

    def __init__(self, app: ASGIApp, doorman: Doorman, limits: Limits, measures: Measures):
        self.app, self.doorman, self.limits, self.measures = app, doorman, limits, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        answer = _Answer(scope, send)
        self.measures.in_flight.inc()
        try:
            async with asyncio.timeout(self.limits.body_seconds + self.limits.max_seconds + SPARE):
                await self._answer(scope, receive, answer)
        except TimeoutError:
            answer.status = answer.status or 499
            raise
        finally:
            self.measures.in_flight.dec()
            self._note(scope, answer)

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        scope["tessera"] = answer.said
        body = _Body(scope, receive, self.limits)
        try:
            address = (scope.get("client") or ("", 0))[0]
            opened = scope["path"].startswith(OPEN)
            answer.said["client"] = address if opened else self.doorman.name(Headers(scope=scope), address)
            await body.expect()
            await self.app(scope, body.receive, answer.send)
        except Refused as wrong:
            await wrong.response()(scope, receive, answer.send)
        except Exception as error:
            if not answer.whole:  # the application told what went wrong, but its answer had begun
                tell_error("answer broke off", error, **answer.said)
                raise BrokenOff from None

    def _note(self, scope: Scope, answer: _Answer) -> None:
        path = next(
            (path for path in PATHS if scope["path"] == path),
            "/pictures" if scope["path"].startswith("/pictures/") else "other",
        )
        seconds = time.perf_counter() - answer.began
        self.measures.requests.labels(path, answer.status or 499).inc()
        self.measures.request_seconds.labels(path).observe(seconds)
        said = {"id": answer.id, "method": scope["method"], "path": path, "status": answer.status or 499}
        tell("request", **said, seconds=round(seconds, 4), **answer.said)


class BrokenOff(Exception):
    """An answer ended in its middle; the connection is closed."""


class _Answer:
    """What is sent, with the request's id in its head."""

    def __init__(self, scope: Scope, send: Send):
        self.id, self.began, self.status, self.outer = secrets.token_hex(8), time.perf_counter(), 0, send
        self.said: dict[str, object] = {}
        self.whole = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            headers["x-content-type-options"] = "nosniff"
            headers["cache-control"] = "no-store"
        await self.outer(message)
        self.whole = message["type"] == "http.response.body" and not message.get("more_body", False)


class _Body:
    """The body of a request, of bounded size, in bounded time."""

    def __init__(self, scope: Scope, receive: Receive, limits: Limits):
        self.outer, self.seconds, self.size, self.whole = receive, limits.body_seconds, 0, False
        self.most = limits.max_upload if scope["path"] == UPLOADS else limits.max_body
        self.headers: Mapping[str, str] = Headers(scope=scope)
        self.until = asyncio.get_running_loop().time() + self.seconds

    async def expect(self) -> None:
        """Raise Refused where the head already says that there is too much."""
        told = self.headers.get("content-length", "0")
        if not told.isascii() or not told.isdigit():
            raise Refused(400, "content-length is not a number.")
        if int(told) > self.most:
            await self._drain()
            raise self._too_large()

    async def receive(self) -> Message:
        if self.whole:  # what comes now is that the client left
            return await self.outer()
        message = await self._next()
        if message["type"] == "http.request":
            self.size += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
            if self.size > self.most:
                await self._drain()
                raise self._too_large()
        return message

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout_at(self.until):
                return await self.outer()
        except TimeoutError as error:
            raise Refused(408, f"The request did not arrive within {self.seconds:g} seconds.") from error

    async def _drain(self) -> None:
        """Read on for a while: a client that still sends would not hear the answer."""
        while not self.whole and self.size <= DRAINED * self.most:
            message = await self._next()
            self.size += len(message.get("body", b""))
            self.whole = message["type"] != "http.request" or not message.get("more_body", False)

    def _too_large(self) -> Refused:
        return Refused(413, f"The request is larger than the {self.most:,} bytes that are accepted here.")


async def unless_gone(receive: Receive, work: Callable[[], Awaitable[object]]) -> object:
    """What `work` returns; where the client leaves before, the work is cancelled, and ClientGone raised."""
    tasks = asyncio.ensure_future(work()), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientGone
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class ClientGone(Exception):
    """The client closed its connection."""


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
