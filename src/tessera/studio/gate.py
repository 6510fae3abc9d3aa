"""Who may see the pages: no page of another site, no name that somebody lets point here, and with keys nobody without
one. It does not know what the pages are."""

from __future__ import annotations

import html
import secrets
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tessera.config.serving import LOOPBACK
from tessera.serve.errors import Refused
from tessera.serve.keys import Doorman, Loopback

COOKIE, ASK = "tessera-studio", "/key"
ASSETS = Path(__file__).parent / "static"
MOST_SESSIONS, MOST_FORM = 1000, 4096
"""Browsers that are known at a time, and bytes of the form with the key."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'self'; "
    "object-src 'none'; frame-ancestors 'self'"
)
"""For every page: it talks to this server and to nobody else, whatever stands in it. Vue makes functions of templates,
hence 'unsafe-eval'."""
HEAD = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Gate:
    """Stands before the pages, their files and their WebSockets."""

    def __init__(self, app: ASGIApp, doorman: Doorman, most: int, public: str = ""):
        """`most` bytes of a request are read. `public` is the address of a proxy before the server."""
        self.app, self.doorman, self.most, self.public = app, doorman, most, urlsplit(public)
        self.keyed = not isinstance(doorman, Loopback)
        self.sessions: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        try:
            self._same_site(headers)
            if self.keyed and scope["path"] == ASK:
                return await (await self._asked(Request(scope, receive)))(scope, receive, _headed(send))
            if self.keyed and not self._known(headers):
                raise Refused(401, "This page needs a key.")
            await self.app(scope, _bounded(receive, self.most), _headed(send))
        except Refused as wrong:
            await self._refuse(wrong, scope, receive, send)

    def _same_site(self, headers: Headers) -> None:
        """Raise Refused where a page of another site asks, or one that has let its own name point here."""
        host = headers.get("host", "")
        if not self.keyed and _name(host) not in LOOPBACK:
            raise Refused(403, "The request names another host; open 127.0.0.1 or localhost, or start with a key file.")
        origin = headers.get("origin")
        if origin is not None and _place(origin) not in (host, self.public.netloc or host):
            raise Refused(403, "The request comes from a page of another site.")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise Refused(403, "The request comes from a page of another site. Type the address instead.")

    def _known(self, headers: Headers) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        told = (cookie.value if cookie else "").encode()
        # All are compared, each in constant time.
        return sum(secrets.compare_digest(told, own.encode()) for own in self.sessions) > 0

    async def _asked(self, request: Request) -> Response:
        """The page that asks for the key; with the right one, a cookie that no script can read."""
        if request.method != "POST":
            return key_page()
        size, parts = 0, []
        async for part in request.stream():
            size += len(part)
            if size > MOST_FORM:
                raise Refused(413, "This is more than a key.")
            parts.append(part)
        key = parse_qs(b"".join(parts).decode("utf-8", "replace")).get("key", [""])[0]
        try:
            self.doorman.name({"authorization": f"Bearer {key}"}, "")
        except Refused:
            return key_page("This is not one of the server's keys.", 401)
        token = secrets.token_urlsafe(32)
        self.sessions[token] = None
        while len(self.sessions) > MOST_SESSIONS:
            self.sessions.popitem(last=False)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=self.public.scheme == "https")
        return answer

    async def _refuse(self, wrong: Refused, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        page = scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", "")
        if wrong.status_code == 401 and page:
            await RedirectResponse(ASK, 303)(scope, receive, _headed(send))
            return
        await wrong.response()(scope, receive, _headed(send))


def key_page(wrong: str = "", status: int = 200) -> Response:
    """A form with one field, without scripts."""
    style = (ASSETS / "key.css").read_text("utf-8")
    said = f"<p class=wrong role=alert>{html.escape(wrong)}</p>" if wrong else ""
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Tessera Studio</title><style>{style}</style><main><h1>Tessera Studio</h1>{said}"
        f"<form method=post action={ASK}><label for=key>Key of this server</label>"
        "<input id=key name=key type=password autocomplete=current-password required autofocus>"
        "<button>Open</button></form><p class=small>Whoever runs the server gave you the key; it is asked for once in "
        "this browser.</p></main></html>",
        status,
    )


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _bounded(receive: Receive, most: int) -> Receive:
    """Reads no more than `most` bytes of a body."""
    size = 0

    async def read() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b"")) if message["type"] == "http.request" else 0
        if size > most:
            raise Refused(413, f"This is larger than the {most:,} bytes that are accepted here.")
        return message

    return read


def _headed(send: Send) -> Send:
    """Puts the headers of every page on its answer, where it has none of its own."""

    async def write(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEAD.items():
                headers.setdefault(name, value)
        await send(message)

    return write
