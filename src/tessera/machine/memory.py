"""How much memory this process may take. It knows no model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch


def free_memory(device: torch.device) -> float:
    """Bytes that one rank may take: of the graphics card, or of what the machine, its container and `ulimit` leave to
    each of the ranks there."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return min([_meminfo() / ranks, *(left / ranks for left in _container()), *_limits()])


def _meminfo() -> float:
    file = Path("/proc/meminfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return float(next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 2**63))


def _container() -> Iterator[float]:
    """What a control group leaves (version 2)."""
    most, now = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if most.is_file() and now.is_file() and (limit := most.read_text().strip()).isdigit():
        yield float(int(limit) - int(now.read_text()))


def _limits() -> Iterator[float]:
    """What `ulimit -v` and `ulimit -d` leave."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return
    import resource

    held = dict(line.split(":", 1) for line in status.read_text().splitlines())
    for kind, key in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield float(limit - int(held[key].split()[0]) * 1024)
