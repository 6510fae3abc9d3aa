"""How much memory this process may take. It knows no model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch


def free_memory(device: torch.device) -> float:
    """Bytes that one rank may take: of the graphics card, or of what the machine, its container and `ulimit` leave to
    each of the ranks there."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return min([psutil.virtual_memory().available / ranks, *(left / ranks for left in _container()), *_limits()])


def _container() -> Iterator[float]:
    """What a control group leaves (version 2)."""
    most, now = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if most.is_file() and now.is_file() and (limit := most.read_text().strip()).isdigit():
        yield float(int(limit) - int(now.read_text()))


def _limits() -> Iterator[float]:
    """What `ulimit -v` and `ulimit -d` leave."""
    process = psutil.Process()
    if not hasattr(process, "rlimit"):  # not Linux
        return
    held = process.memory_info()
    for kind, size in ((psutil.RLIMIT_AS, held.vms), (psutil.RLIMIT_DATA, held.data)):
        limit, _ = process.rlimit(kind)
        if limit != psutil.RLIM_INFINITY:
            yield float(limit - size)
