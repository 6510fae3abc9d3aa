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
import traceback
from pathlib import Path

from tessera.machine.launch import die_with_the_parent

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


def port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


class Ranks:
    """The process that forks."""

    def __init__(self, log: Path):
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, processes: int, code: str) -> None:
        """Run Python code in each of `processes` ranks, or, where there are none, in one process outside any job."""
        assert self.process.stdin
        assert self.process.stdout
        self.log.unlink(missing_ok=True)
        job = {"processes": processes, "code": code, "log": str(self.log), "port": port()}
        print(json.dumps(job), file=self.process.stdin, flush=True)
        statuses = json.loads(self.process.stdout.readline())
        said = self.log.read_text(errors="replace")
        assert not any(statuses), f"{statuses}: {said[:3000]}{said[-3000:]}"

    def close(self) -> None:
        """End it. Its input must not be waited for: what the tests forked beside it holds that open too."""
        self.process.kill()
        self.process.communicate()


def begin(job: dict, rank: int) -> None:
    """The life of a forked process."""
    die_with_the_parent(os.getppid())
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if count := job["processes"]:
        os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                           "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": job["port"]})  # fmt: skip
    status = 0
    try:
        exec(job["code"], {})
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve() -> None:
    """A job for each line that is read. A rank that fails ends the others."""
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        job, pids = json.loads(line), []
        for rank in range(max(1, job["processes"])):
            if not (pid := os.fork()):
                begin(job, rank)
            pids.append(pid)
        statuses = dict.fromkeys(pids, 0)
        for _ in pids:
            pid, status = os.wait()
            statuses[pid] = status
            for other in pids if status else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)
        print(json.dumps(list(statuses.values())), file=answers, flush=True)


NEEDED = [
    "tessera.cli", "tessera.journeys.training", "tessera.train.engines.ddp", "tessera.train.engines.fsdp",
    "tessera.train.job", "matplotlib.figure", "deepspeed",
]  # fmt: skip

if __name__ == "__main__":
    die_with_the_parent(os.getppid())
    for name in NEEDED:
        with contextlib.suppress(ImportError), contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(name)
    serve()
