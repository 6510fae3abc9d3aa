"""A request that another process answers: message by message, given up with its client, and lost with its process."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from small_server import bench, pipeline
from tessera.config import Limits, ServingConfig
from tessera.serve.app import application
from tessera.serve.errors import Refused
from tessera.serve.guard import Guard
from tessera.serve.keys import doorman
from tessera.serve.measures import Measures
from tessera.serve.relay import Relay, answered
from tessera.serve.worker import Worker

BODY = {"prompt": "1 2", "seed": 3}


@pytest.fixture
def worker():
    own = Worker({"tiny": bench(pipeline())})
    own.start()
    yield own
    own.stop()


def inner(worker: Worker):
    return application(worker, ServingConfig(), doorman(""), Measures())


def door(answer) -> Guard:
    def lost(error: Exception) -> Refused:
        if isinstance(error, ConnectionError):
            return Refused(503, "Ask again.", code="replica", after=1)
        raise error

    return Guard(Relay(answer, lost), doorman(""), Limits(), Measures())


def client(app) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


def test_an_answer_through_a_relay_is_the_answer(worker):
    async def both(body: dict, path: str = "/v1/images/generations"):
        app = inner(worker)
        async with client(app) as near, client(door(lambda scope, body: answered(app, scope, body))) as far:
            return [await own.post(path, json=body) for own in (near, far)]

    for body in (BODY, {"prompt": " "}, {**BODY, "stream": True, "partial_images": 2}):
        near, far = asyncio.run(both(body))
        assert near.status_code == far.status_code
        pick = lambda answer: [line for line in answer.text.splitlines() if line.startswith("event")] or answer.json()
        one, two = pick(near), pick(far)
        if isinstance(one, dict):
            one.pop("created", 0), two.pop("created", 0)
        assert one == two
    near, far = asyncio.run(both(BODY, "/v1/nothing"))
    assert (near.status_code, near.json()) == (far.status_code, far.json())


def test_where_the_process_is_lost_before_the_answer_the_client_is_told_to_ask_again():
    async def lost(scope, body):
        yield {"type": "http.response.start", "status": 200, "headers": []}
        raise ConnectionError

    async def ask():
        async with client(door(lost)) as own:
            return await own.post("/v1/images/generations", json=BODY)

    answer = asyncio.run(ask())
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "replica"


def test_where_it_is_lost_in_the_middle_the_answer_breaks_off():
    sent = []

    async def lost(scope, body):
        yield {"type": "http.response.start", "status": 200, "headers": []}
        yield {"type": "http.response.body", "body": b"half", "more_body": True}
        raise ConnectionError

    async def ask():
        app = door(lost)
        waiting = [{"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}]

        async def receive():
            return waiting.pop() if waiting else await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        await app(
            {"type": "http", "path": "/v1/models", "method": "GET", "headers": [(b"host", b"localhost")]}, receive, send
        )

    with pytest.raises(Exception) as error:  # noqa: PT011
        asyncio.run(ask())
    assert type(error.value).__name__ == "BrokenOff"
    assert [m["type"] for m in sent] == ["http.response.start", "http.response.body"]


def test_a_client_that_leaves_a_relay_frees_its_rows(worker):
    tiny = worker.benches["tiny"]
    step, slow = tiny.seats.step, 0.1
    tiny.seats.step = lambda: (__import__("time").sleep(slow), step())[1]

    async def leave() -> int:
        app = inner(worker)
        async with client(door(lambda scope, body: answered(app, scope, body))) as own:
            asked = asyncio.create_task(own.post("/v1/images/generations", json={**BODY, "n": 4}))
            while tiny.seats.free:
                await asyncio.sleep(0.01)
            done = tiny.seats.drawings[0].done
            asked.cancel()
            for _ in range(200):
                await asyncio.sleep(0.01)
                if tiny.seats.free == 4:
                    break
            return done

    assert asyncio.run(leave()) < 16
    assert tiny.seats.free == 4
