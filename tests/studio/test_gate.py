"""Who gets to the pages: with and without keys, over HTTP and WebSocket."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tessera.serve.keys import doorman
from tessera.studio.gate import COOKIE, Gate

KEY = "a-key-of-thirty-letters-or-so"
ADDRESS = "http://127.0.0.1:8000"


async def inner(scope, receive, send):
    """Reads all, and answers."""
    while scope["type"] == "http" and (await receive()).get("more_body"):
        pass
    start, body = ("http.response.start", "http.response.body") if scope["type"] == "http" else ("websocket.accept", "")
    await send({"type": start, "status": 200, "headers": []})
    if body:
        await send({"type": body, "body": b"page"})


@pytest.fixture
def keys(tmp_path):
    file = tmp_path / "keys"
    file.write_text(KEY)
    return str(file)


def ask(gate: Gate, method: str = "GET", path: str = "/", base: str = ADDRESS, **options) -> httpx.Response:
    async def go() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url=base) as client:
            return await client.request(method, path, **options)

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ({}, 200),
        ({"Origin": ADDRESS}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Host": "evil.example"}, 403),  # a name that points here (DNS rebinding)
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),  # another server of this machine
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_pages_of_other_sites_get_nothing(head, status):
    gate = Gate(inner, doorman(""), 1000)
    assert ask(gate, headers=head).status_code == status
    assert ask(gate, "POST", headers=head).status_code == status
    assert (socket(gate, head) == "websocket.accept") == (status == 200)


def socket(gate: Gate, head: dict[str, str]) -> str:
    """The first thing that a WebSocket is told."""
    told: list[str] = []
    headers = {"host": "127.0.0.1:8000", **{name.lower(): value for name, value in head.items()}}
    scope = {
        "type": "websocket",
        "path": "/_nicegui_ws/",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        told.append(message["type"])

    asyncio.run(gate(scope, receive, send))
    return told[0]


def test_with_keys_the_page_asks_once_and_gives_a_cookie_that_scripts_do_not_see(keys):
    gate = Gate(inner, doorman(keys), 1000)
    page = {"Accept": "text/html"}
    assert ask(gate, headers=page).headers["location"] == "/key"
    assert ask(gate, path="/studio/gallery/x").status_code == 401
    assert socket(gate, {}) == "websocket.close"
    assert "password" in ask(gate, path="/key").text
    wrong = ask(gate, "POST", "/key", data={"key": "wrong"})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    right = ask(gate, "POST", "/key", data={"key": KEY})
    assert right.status_code == 303
    cookie = right.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
    assert KEY not in cookie
    own = {"Cookie": cookie.split(";")[0]}
    assert ask(gate, headers=own).text == "page"
    assert socket(gate, own) == "websocket.accept"
    assert ask(gate, headers={"Cookie": f"{COOKIE}=other"}).status_code == 401
    assert ask(gate, headers={**own, "Origin": "https://evil.example"}).status_code == 403


def test_the_key_is_not_taken_from_a_form_of_another_site(keys):
    gate = Gate(inner, doorman(keys), 1000)
    answer = ask(gate, "POST", "/key", data={"key": KEY}, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert ask(gate, "POST", "/key", content=b"key=" + b"x" * 5000).status_code == 413


def test_a_proxy_with_tls_may_stand_before_it(keys):
    gate = Gate(inner, doorman(keys), 1000, "https://birds.example.org")
    answer = ask(gate, "POST", "/key", data={"key": KEY}, headers={"Origin": "https://birds.example.org"})
    assert "Secure" in answer.headers["set-cookie"].split("; ")


def test_bodies_are_bounded_and_every_page_has_its_policy():
    gate = Gate(inner, doorman(""), 1000)
    assert ask(gate, "POST", content=b"x" * 1001).status_code == 413
    answer = ask(gate, "POST", content=b"x" * 1000)
    assert answer.status_code == 200
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
