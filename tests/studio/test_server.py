"""The process as others meet it: runs that come, WebSockets of other sites, signals, settings."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from small_runs import run_folder
from tessera.cli import main


def handshake(address: str, **headers: str) -> tuple[socket.socket, bytes]:
    """What the server answers to a WebSocket's first words."""
    host = address.removeprefix("http://")
    own = socket.create_connection((host.split(":")[0], int(host.split(":")[1])), timeout=10)
    given = {
        "Host": host, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(b"0" * 16).decode(), **headers,
    }  # fmt: skip
    lines = [f"{name}: {value}" for name, value in given.items()]
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    own.sendall("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
    return own, own.recv(100)


def test_a_run_that_comes_later_is_drawn_from_and_pages_of_other_sites_get_nothing(tmp_path):
    ready = run_folder(tmp_path / "elsewhere")
    command = [sys.executable, "-m", "tessera", "studio", "runs", "--port", "0", "--max-batch", "2", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        line = server.stdout.readline()
        assert line.startswith("The Studio is at http://127.0.0.1:"), line + server.stderr.read()
        address = line.split()[4]
        assert httpx.get(f"{address}/", follow_redirects=True).url.path == "/folder", "it starts without any run"
        wrong = httpx.post(f"{address}/v1/images/generations", json={"prompt": "1"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "model_not_found")
        shutil.copytree(ready, tmp_path / "runs" / "birds")
        until = time.monotonic() + 30
        while not httpx.get(f"{address}/v1/models").json()["data"] and time.monotonic() < until:
            time.sleep(0.2)
        drawn = httpx.post(f"{address}/v1/images/generations", json={"prompt": "1", "seed": 3}).json()
        assert (drawn["model"], drawn["data"][0]["seed"]) == ("birds", 3)
        for head in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "http://127.0.0.1:1"}):
            own, answer = handshake(address, **head)
            own.close()
            assert answer.startswith(b"HTTP/1.1 403"), head
            get = httpx.get(f"{address}/draw", headers=head)
            assert get.status_code == 403
        own, answer = handshake(address, Origin=address)
        assert answer.startswith(b"HTTP/1.1 101"), "an open page does not keep the server from ending"
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        own.close()
        lines = [json.loads(line) for line in server.stderr.read().splitlines()]
        assert {line["level"] for line in lines} == {"info"}


def refused(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["studio", *words])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_it_is_not_bound_beyond_this_machine_without_a_key(capsys):
    assert "--api-key-file" in refused(capsys, "--host", "0.0.0.0")


def test_a_folder_of_pictures_that_is_not_there_is_named(capsys):
    assert "--pictures absent is not a folder" in refused(capsys, "--pictures", "absent")


def test_without_the_extra_the_install_line_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tessera.studio.server", None)
    assert "pip install 'tessera-t2i[studio]'" in refused(capsys, "runs")
