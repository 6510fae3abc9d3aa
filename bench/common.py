"""Rows of measurements: what was measured, where, at which commit. It knows no question."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def median_of(work: Callable[[], Any], times: int = 5, warm: int = 1) -> tuple[float, float]:
    """Median seconds of `times` calls after `warm` ones, and the spread (max - min)."""
    for _ in range(warm):
        work()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), max(seconds) - min(seconds)


def row(question: str, **figures: Any) -> None:
    """Append a row to results/<question>.jsonl and print it."""
    import torch

    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": git.stdout.strip(),
        "hardware": f"{processor()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "command": "python " + " ".join([f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }
    full = {"question": question, **figures, **about}
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{question}.jsonl").open("a") as file:
        file.write(json.dumps(full) + "\n")
    print(json.dumps(full))


def processor() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
