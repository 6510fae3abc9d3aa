"""What a process must know of the launcher that started it, before anything slow is imported. It knows nothing else."""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def launched() -> int:
    """How many processes a launcher (torchrun, deepspeed, srun) started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", 1))


def die_with_the_launcher() -> None:
    """A launcher that is killed must not leave workers behind, which would go on writing beside the next job's, or wait
    for a job that is no more and meet the next one."""
    if sys.platform == "linux" and launched() > 1:
        parent = os.getppid()
        if hasattr(library := ctypes.CDLL(None), "prctl"):
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
