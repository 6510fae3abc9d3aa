"""Only this program's own commands are started; they are found again, stopped, and not taken for others."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import pytest

from tessera.errors import ConfigError
from tessera.studio import processes as module
from tessera.studio.processes import Processes, asked

SLEEPS = "import sys, time; print('\\rone\\rtwo\\x07', sys.argv[1:], flush=True); time.sleep(60)"


@pytest.fixture
def sleeping(tmp_path, monkeypatch):
    """Processes that sleep in place of training."""
    monkeypatch.setattr(module, "START", (sys.executable, "-c", SLEEPS))
    own = Processes(tmp_path / "studio")
    yield own
    for process in own.own.values():
        process.kill()
        process.wait()


def until(holds, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_is_found_again_by_another_server_and_stopped(sleeping):
    job = sleeping.start("learn", "birds", ["/pictures", "--budget", "30m"], "/pictures", "30m")
    again = Processes(sleeping.folder)
    assert again.running("birds") == job
    assert (job.pictures, job.budget, job.command) == ("/pictures", "30m", "learn")
    until(lambda: again.tail("birds"))
    assert again.tail("birds").startswith("two ['learn', '/pictures', '--budget', '30m']"), (
        "the last of an overdrawn line"
    )
    assert again.memory("birds") > 0
    with pytest.raises(ConfigError, match="at work already"):
        again.start("evaluate", "birds", [])
    again.stop("birds")
    until(lambda: not again.running("birds") or not sleeping.running("birds"))
    assert sleeping.status("birds") == -15


def test_a_process_outlives_the_one_that_started_it(sleeping):
    job = sleeping.start("learn", "birds", [])
    assert os.getsid(job.pid) != os.getsid(0), "a session of its own: Ctrl-C at the server does not reach it"


def test_another_process_with_the_same_number_is_left_alone(sleeping, monkeypatch):
    sleeping.start("learn", "birds", [])
    path = sleeping.folder / "jobs" / "birds.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "pid": os.getpid()}))
    again = Processes(sleeping.folder)
    assert again.running("birds") is None
    again.stop("birds")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"run": "birds"}', "\x00"])
def test_a_damaged_record_is_no_job(sleeping, content):
    (sleeping.folder / "jobs").mkdir(parents=True)
    (sleeping.folder / "jobs" / "birds.json").write_text(content)
    assert sleeping.running("birds") is None


def test_nothing_else_can_be_started(tmp_path):
    with pytest.raises(AssertionError):
        Processes(tmp_path / "studio").start("rm", "birds", [])  # type: ignore[arg-type]
    assert module.START[1:] == ("-P", "-m", "tessera")


def test_what_a_command_says_is_wrong_is_told(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        asyncio.run(asked("data", ["check", str(tmp_path / "absent"), "--json"], 60))


def test_a_command_that_takes_too_long_is_ended(monkeypatch):
    monkeypatch.setattr(module, "START", (sys.executable, "-c", SLEEPS))
    with pytest.raises(ConfigError, match="longer than"):
        asyncio.run(asked("data", [], 0.5))
