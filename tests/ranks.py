"""Processes that start in a moment, alone or as the ranks of a job: each is forked from one that has imported everything.

They get the environment that torchrun would give them. What a launcher itself does is tested with torchrun.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

from tessera.machine.launch import STOPS, die_with_the_parent

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


def port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def main_with(args: list[str]) -> str:
    """Code that is one command line of Tessera's."""
    return f"from tessera.cli import main; main({args})"


class Job:
    """Processes that were started together; it is asked and stopped as a subprocess.Popen is."""

    def __init__(self, answer: Path, log: Path, pid: int):
        self.answer, self.log, self.returncode = answer, log, None
        self.pid = pid
        """Of their group."""
        while not (lines := self._answers()):
            time.sleep(0.002)
        self.pids: list[int] = lines[0]
        """Of each of them."""

    def _answers(self) -> list[list[int]]:
        """Their pids, and, when all have ended, their statuses."""
        return [json.loads(line) for line in self.answer.read_text().splitlines()] if self.answer.is_file() else []

    def poll(self) -> int | None:
        """The status of the first that failed, 0 where none did, None while one of them runs."""
        if self.returncode is None and len(lines := self._answers()) > 1:
            self.returncode = next(filter(None, lines[1]), 0)
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        until = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                self.kill()
                raise TimeoutError(f"still running after {timeout} s: {self.said()[-3000:]}")
            time.sleep(0.005)
        return status

    def said(self) -> str:
        """What they wrote so far, to either stream."""
        return self.log.read_text(errors="replace")

    def communicate(self, timeout: float = 300) -> tuple[None, str]:
        self.wait(timeout)
        return None, self.said()

    def send_signal(self, number: int) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Ranks:
    """The process that forks."""

    def __init__(self, folder: Path):
        self.folder, self.jobs = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, processes: int, code: str) -> Job:
        """Python code in each of `processes` ranks, or, where there are none, in one process outside any job."""
        assert self.process.stdin
        assert self.process.stdout
        self.jobs += 1
        answer, log = self.folder / f"{self.jobs}.answer", self.folder / f"{self.jobs}.log"
        log.touch()
        job = {"processes": processes, "code": code, "log": str(log), "answer": str(answer), "port": port()}
        print(json.dumps(job), file=self.process.stdin, flush=True)
        return Job(answer, log, int(self.process.stdout.readline()))

    def run(self, processes: int, code: str, timeout: float = 300) -> str:
        """The same to its end, which must be a good one; returns what was written."""
        job = self.start(processes, code)
        status, said = job.wait(timeout), job.said()
        assert status == 0, f"{status}: {said[:3000]}{said[-3000:]}"
        return said

    def close(self) -> None:
        """End it. Its input must not be waited for: what the tests forked beside it holds that open too."""
        self.process.kill()
        self.process.communicate()


def begin(job: dict, rank: int) -> None:
    """The life of a forked process."""
    die_with_the_parent(os.getppid())
    for number in STOPS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if count := job["processes"]:
        os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                           "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": job["port"]})  # fmt: skip
    status = 0
    try:
        exec(job["code"], {"__name__": "__main__"})
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def lead(job: dict) -> None:
    """Fork the ranks of a job and tell what became of them. A rank that fails ends the others."""
    die_with_the_parent(os.getppid())
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in STOPS:  # they are for the ranks
        signal.signal(number, signal.SIG_IGN)
    pids = []
    for rank in range(max(1, job["processes"])):
        if not (pid := os.fork()):
            begin(job, rank)
        pids.append(pid)
    with open(job["answer"], "w") as answer:
        print(json.dumps(pids), file=answer, flush=True)
        statuses = dict.fromkeys(pids, 0)
        for _ in pids:
            pid, status = os.wait()
            statuses[pid] = os.waitstatus_to_exitcode(status)
            for other in pids if status else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)
        print(json.dumps(list(statuses.values())), file=answer, flush=True)
    os._exit(0)


def serve() -> None:
    """Fork a leader for each line that is read, and answer with its pid."""
    answers = os.fdopen(os.dup(1), "w")
    signal.signal(signal.SIGCHLD, lambda *_: bury())
    for line in sys.stdin:
        if not (pid := os.fork()):
            lead(json.loads(line))
        print(pid, file=answers, flush=True)


def bury() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


NEEDED = [
    "tessera.cli", "tessera.journeys.training", "tessera.journeys.learn", "tessera.train.engines.ddp",
    "tessera.train.engines.fsdp", "tessera.train.job", "matplotlib.figure", "deepspeed",
]  # fmt: skip

if __name__ == "__main__":
    die_with_the_parent(os.getppid())
    for name in NEEDED:
        with contextlib.suppress(ImportError), contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(name)
    serve()
