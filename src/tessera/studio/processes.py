"""Commands of this program as processes of their own, which outlive the page and the server. Nothing else of the Studio
starts anything; it knows no pages.

What is started is written down in STUDIO/jobs/NAME.json, without its command: a file is never turned into a command.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from tessera.config.merging import read_json
from tessera.errors import ConfigError, TesseraError
from tessera.files.atomic import write_whole
from tessera.files.claim import claim

Command = Literal["learn", "evaluate"]
COMMANDS = ("learn", "evaluate", "show", "data")
"""What may be started."""
TAIL = 16_384
"""Bytes of a log that are shown."""
START = (sys.executable, "-P", "-m", "tessera")
"""This program; -P keeps what lies in the current folder from being imported."""


@dataclass(frozen=True)
class Job:
    """A command that was started for a run."""

    command: Command
    run: str
    pid: int
    born: float
    """When the process began, by the system's clock: another process with the same number has another."""
    began: float
    pictures: str = ""
    budget: str = ""
    end: int | None = field(default=None)
    """Its exit status, where this server saw it."""


class Processes:
    """Those of one folder of runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.own: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, command: Command, run: str, words: Sequence[str], pictures: str = "", budget: str = "") -> Job:
        """Start a command with its words. Raises ConfigError where one is still at work for this run."""
        if self.running(run):
            raise ConfigError(f"{run} is at work already; stop it first.")
        claim(self.folder, "studio")
        for name in ("jobs", "logs"):
            (self.folder / name).mkdir(exist_ok=True)
        with self.log(run).open("wb") as log:
            self.own[run] = process = subprocess.Popen(
                _command(command, words), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        job = Job(command, run, process.pid, psutil.Process(process.pid).create_time(), time.time(), pictures, budget)
        write_whole(self._file(run), json.dumps(asdict(job)))
        return job

    def stop(self, run: str) -> None:
        """Ask it to save and end."""
        if process := self._process(self.job(run)):
            process.terminate()

    def job(self, run: str) -> Job | None:
        """What was last started for a run."""
        try:
            found = read_json(self._file(run), Job)
        except TesseraError:
            return None
        return found if found.run == run else None

    def running(self, run: str) -> Job | None:
        job = self.job(run)
        return job if self._process(job) else None

    def memory(self, run: str) -> int:
        """Bytes that it holds, its children included."""
        process, total = self._process(self.job(run)), 0
        with suppress(psutil.Error):
            for part in [process, *process.children(recursive=True)] if process else []:
                total += part.memory_info().rss
        return total

    def log(self, run: str) -> Path:
        return self.folder / "logs" / f"{run}.log"

    def tail(self, run: str) -> str:
        """The end of what it said; of a line that was drawn over, the last."""
        try:
            with self.log(run).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        lines = [line.rpartition("\r")[2] for line in text.split("\n")]
        return "\n".join("".join(c for c in line if c.isprintable()) for line in lines[-200:])

    def status(self, run: str) -> int | None:
        """The exit status of a process that this server started and saw end."""
        own = self.own.get(run)
        return own.poll() if own else None

    def _process(self, job: Job | None) -> psutil.Process | None:
        """The running process of a job; None if it has ended, or if another process now has its pid."""
        if job is None:
            return None
        self.status(job.run)  # takes leave of a child that ended, which would else live on as a zombie
        with suppress(psutil.Error, OSError):
            process = psutil.Process(job.pid)
            if abs(process.create_time() - job.born) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def _file(self, run: str) -> Path:
        return self.folder / "jobs" / f"{run}.json"


def _command(command: str, words: Sequence[str]) -> list[str]:
    assert command in COMMANDS, command
    return [*START, command, *words]


async def asked(command: str, words: Sequence[str], seconds: float) -> str:
    """What a short command answers. Raises ConfigError with its own sentence where it fails, or takes too long."""
    process = await asyncio.create_subprocess_exec(
        *_command(command, words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise ConfigError(f"Looking at the pictures took longer than {seconds:.0f} seconds.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = err.decode("utf-8", "replace").strip().splitlines()
        raise ConfigError(lines[-1].removeprefix("tessera: ") if lines else "The command failed without a word.")
    return out.decode("utf-8", "replace")
