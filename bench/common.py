"""Rows of measurements, and rivals: where they lie, and how they take turns. It knows no question."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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

    about = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "hardware": f"{processor()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "command": "python " + " ".join([f"bench/{Path(sys.argv[0]).name}", *map(short, sys.argv[1:])]),
    }
    full = {"question": question, **figures, **about}
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{question}.jsonl").open("a") as file:
        file.write(json.dumps(full) + "\n")
    print(json.dumps(full), flush=True)


def commit() -> str:
    """What was measured: a commit, and "-dirty" where a file was changed since, the rows themselves left out."""
    git = lambda *words: subprocess.run(
        ["git", *words], capture_output=True, text=True, cwd=RESULTS.parent
    ).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!results")
    return git("describe", "--always") + ("-dirty" if changed else "")


def short(word: str) -> str:
    """A word of a command; of a path from the root only its last part, since it says nothing on another machine."""
    return Path(word).name if Path(word).is_absolute() else word


def processor() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def placed(name: str, packages: Sequence[str], empty: Mapping[str, str]) -> Path:
    """A folder to put on a rival's path, with these packages and nothing that they want beside; made on the first call.

    `empty` are small files in place of what a rival imports and does not use here, by path.
    """
    folder = Path.home() / ".cache" / "tessera" / "bench" / name
    if not (folder / "ready").is_file():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
        subprocess.run([*pip, *packages], check=True)
        for file, content in empty.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(content)
        (folder / "ready").touch()
    return folder


class Rival:
    """Another process that does what it is told, so that several can take turns on one machine, each with its own
    memory to measure. `script` calls `answer`."""

    def __init__(self, script: str, *args: str, path: str = "", threads: int = 0):
        environment = {**os.environ, "PYTHONPATH": path} if path else dict(os.environ)
        environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
        command = [sys.executable, str(Path(__file__).parent / script), *args]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, task: str, **arguments: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps([task, arguments]), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} died in {task}")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def answer(tasks: Mapping[str, Callable[..., Any]]) -> None:
    """Do what comes in, line by line; say what came of it, with its seconds and by how many bytes memory grew."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        task, arguments = json.loads(line)
        before = restart_peak()
        began, busy = time.perf_counter(), time.process_time()
        value = tasks[task](**arguments)
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        told = {"value": value, "seconds": seconds, "cpu": busy, "growth": peak() - before, "before": before}
        print(json.dumps(told), file=out, flush=True)


def medians(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """What several equal answers say together."""
    seconds = [a["seconds"] for a in answers]
    return {
        "seconds": statistics.median(seconds),
        "spread": max(seconds) - min(seconds),
        "cpu": statistics.median(a["cpu"] for a in answers),
        "growth": max(a["growth"] for a in answers),
    }


def restart_peak() -> int:
    """Forget the peak of this process's memory; returns what it holds now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """The most bytes that this process held since `restart_peak`."""
    return _status("VmHWM")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)
