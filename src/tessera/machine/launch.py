"""What a process must know of the one that started it, and of signals, before anything slow is imported. It knows
nothing else."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what schedulers, `timeout` and systemd send; often to every process of a job at once."""


def launched() -> int:
    """How many processes a launcher (torchrun, deepspeed, srun) started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """Which of the launcher's processes this is, from 0."""
    return int(os.environ.get("RANK") or 0) if launched() > 1 else 0


def die_with_the_launcher() -> None:
    """A launcher that is killed must not leave workers behind, which would go on writing beside the next job's, or wait
    for a job that is no more and meet the next one."""
    if launched() > 1:
        die_with_the_parent(os.getppid())


def die_with_the_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the process `parent` ends; where it cannot be asked, nothing happens."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "prctl"):
        library.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died in between
            os._exit(1)


def wait_politely() -> None:
    """Let threads that wait for each other sleep after some microseconds instead of spinning for milliseconds.

    Where another program has one of the cores, spinning keeps the thread that is waited for from its core: a training
    step then takes several times as long. On a quiet machine it makes no difference (`bench/busy.py` measures both).
    OpenMP reads it when torch is imported; what the user has set is left alone.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "1000"


@contextmanager
def holding_signals() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the end of the block, also in the processes that are started in it, until
    each calls `leave_signals_to_the_parent`."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_the_parent(parent: int, *_: object) -> None:
    """The first thing that a worker process does: what stops a job is for its parent, and it ends with that."""
    import multiprocessing

    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)  # also forgets one that was held back
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    if multiprocessing.get_start_method() != "forkserver":  # whose workers are the server's children
        die_with_the_parent(parent)
