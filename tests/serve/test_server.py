"""The process as others meet it: raw sockets, clients that leave, pages of other sites, signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import openai
import pytest

from small_runs import run_folder
from small_server import serving
from tessera.config import Limits
from tessera.serve import server as serve_module


@pytest.fixture(scope="module")
def served():
    with serving() as own:
        yield own


def body(**fields) -> bytes:
    return json.dumps({"prompt": "1", **fields}).encode()


def raw(served, content: bytes, wait: float = 5.0) -> bytes:
    """What the server answers to bytes, until it closes or nothing comes."""
    host, port = served.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as own:
        found = b""
        with contextlib.suppress(OSError):  # it may close before it has read everything
            own.sendall(content)
            own.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while part := own.recv(65536):
                found += part
    return found


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 400), (b"null", 400), (b'"1"', 400), (b"{}", 400), (b"\xff\xfe", 400),
        (b"[" * 100_000, 400), (b'{"prompt": "\\ud800"}', 400), (b'{"prompt": "1", "seed": 1e400}', 400),
        (b'{"prompt": "1", "temperature": NaN}', 400), (b'{"prompt": "1", "n": ' + b"9" * 5000 + b"}", 400),
        (b'{"prompt": 1}', 400), (b'{"prompt": "1", "n": "2"}', 400), (b'{"prompt": "1", "prompt": "2"}', 200),
        (b'{"prompt": "\\u0000"}', 400),
    ],
)  # fmt: skip
def test_bodies_that_are_not_a_request_are_refused_in_openais_form(served, content, status):
    answer = httpx.post(
        f"{served.address}/v1/images/generations", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    if status != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/images/generations", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/docs", 404),
        ("GET", "/pictures/../x", 404),
        ("GET", "/pictures/%2e%2e%2fetc%2fpasswd", 404),
    ],
)
def test_what_is_not_there_is_said_in_openais_form(served, method, path, status):
    answer = httpx.request(method, f"{served.address}{path}")
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1:8000"}, 200),
    ],
)
def test_pages_of_other_sites_may_not_draw(served, head, status):
    answer = httpx.post(f"{served.address}/v1/images/generations", content=body(), headers={"content-type": "text/plain", **head} | ({"content-type": "application/json"} if status == 200 else {}))  # fmt: skip
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_a_form_is_not_taken_for_json(served):
    """A page can send such a body without asking first."""
    answer = httpx.post(
        f"{served.address}/v1/images/generations", content=body(), headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 400


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_rows(stream):
    with serving() as served:
        served.slow_down(0.2)
        host, port = served.address.removeprefix("http://").split(":")
        content = body(n=4, stream=stream)
        with socket.create_connection((host, int(port))) as own:
            own.sendall(b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)  # fmt: skip
            until = time.monotonic() + 10
            while served.bench.seats.free and time.monotonic() < until:
                time.sleep(0.01)
            assert served.bench.seats.free == 0
            steps = len(served.bench.seats.drawings) and served.bench.seats.drawings[0].done
            drawing = served.bench.seats.drawings[0]
        while served.bench.seats.free < 4 and time.monotonic() < until:
            time.sleep(0.01)
        assert served.bench.seats.free == 4
        assert drawing.done <= steps + 2, (
            "the step that was being taken, and at most one that began before the news came"
        )


def test_slow_and_idle_connections_are_closed(monkeypatch):
    monkeypatch.setattr(serve_module, "HEAD_SECONDS", 0.3)
    with serving(limits=Limits(body_seconds=0.3)) as served:
        host, port = served.address.removeprefix("http://").split(":")
        for begun in (b"", b"POST /v1/images/generations HT"):
            with socket.create_connection((host, int(port)), timeout=5) as own:
                own.sendall(begun)
                with pytest.raises((ConnectionResetError, AssertionError)):
                    assert own.recv(100) != b""
        head = b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        with socket.create_connection((host, int(port)), timeout=5) as own:
            own.sendall(head)
            assert b" 408 " in own.recv(1000)
        with served.client() as client:
            assert client.images.generate(prompt="1").data


def test_there_are_no_more_connections_than_allowed():
    with serving(limits=Limits(max_connections=3)) as served:
        host, port = served.address.removeprefix("http://").split(":")
        held = [socket.create_connection((host, int(port)), timeout=5) for _ in range(3)]
        time.sleep(0.2)
        with (
            socket.create_connection((host, int(port)), timeout=5) as more,
            pytest.raises((ConnectionResetError, AssertionError)),
        ):
            assert more.recv(10) != b""
        held.pop().close()
        time.sleep(0.2)
        assert httpx.get(f"{served.address}/health").status_code == 200
        for own in held:
            own.close()


def test_several_requests_on_one_connection_and_what_is_not_http(served):
    with httpx.Client() as client:
        for _ in range(3):
            assert client.get(f"{served.address}/health").status_code == 200
    assert raw(served, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert b" 200 " not in raw(served, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 700_000 + b"\r\n\r\n")
    both = b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert b" 200 " not in raw(served, both)


def test_the_command_serves_says_where_drains_at_sigterm_and_ends_well(tmp_path):
    run = run_folder(tmp_path / "birds")
    command = [sys.executable, "-m", "tessera", "serve", str(run), "--port", "0", "--max-batch", "2", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        line = server.stdout.readline()
        assert line.startswith("Serving birds at http://127.0.0.1:"), line + server.stderr.read()
        client = openai.OpenAI(base_url=line.split()[-1], api_key="none", max_retries=0)
        stream = client.images.generate(prompt="1", n=10, stream=True, size="1024x1024")
        next(stream)
        server.send_signal(signal.SIGTERM)
        assert len(list(stream)) == 9, "what is being drawn is finished"
        assert server.wait(20) == 0
        lines = [json.loads(line) for line in server.stderr.read().splitlines()]
    assert [(line["event"], line["path"], line["status"]) for line in lines] == [
        ("request", "/v1/images/generations", 200)
    ]
    client.close()
