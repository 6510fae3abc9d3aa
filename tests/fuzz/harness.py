"""One case, judged: it succeeds or raises one TesseraError that names the file, soon, and harms nothing outside.

`must_end_well` is the law. It knows no format and no reader.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tessera.errors import TesseraError

SECONDS = float(os.environ.get("TESSERA_FUZZ_SECONDS", "10"))
"""What one case may take; an honest one takes milliseconds."""
MEMORY = 3 << 30
"""Bytes that one case may reserve beyond what the process has."""
MEMORY_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where folders are made and removed at no cost."""
SPECIAL = ("missing", "fifo", "link to itself", "link to nothing", "link outside", "folder", "socket")
"""What may stand where a file was, besides bytes."""

NEAR = Path("../case")
"""A case's folder, seen from where a case runs: so a tree that was made once names its own files anywhere."""

Tree = Mapping[str, bytes]
"""Path -> what is in the file."""

Changes = Mapping[str, bytes | str]
"""Path in the tree -> its bytes, or one of SPECIAL."""


# Where a case lives.


class Ground:
    """A case's folder, and beside it a place with other people's files that no case may change."""

    def __init__(self) -> None:
        base = Path(tempfile.mkdtemp(prefix="tessera-fuzz-", dir=MEMORY_DISK)).resolve()
        self.base, self.case, self.outside, self.tools = (base, base / "case", base / "outside", base / "tools")
        for name in ("thesis.tex", ".env", "runs/mine/config.json", "runs/mine/.git/HEAD", "pictures/a.png"):
            (self.outside / name).parent.mkdir(parents=True, exist_ok=True)
            (self.outside / name).write_text(f"precious {name}")
        self.tools.mkdir()
        for name in ("gs", "gsutil", "aws", "hdfs"):  # what readers might start where it is installed
            (self.tools / name).write_text(f"#!/bin/sh\ntouch {self.outside}/{name}_ran\n")
            (self.tools / name).chmod(0o755)
        self.before = self.state()
        atexit.register(shutil.rmtree, base, ignore_errors=True)

    def fresh(self) -> Path:
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir()
        return self.case

    def state(self) -> dict[str, str]:
        """Every file and folder outside, with what is in it."""
        found = {}
        for folder, _, files in os.walk(self.outside):
            found[folder] = "a folder"
            for name in files:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    found[path] = hashlib.blake2b(file.read()).hexdigest()
        return found

    def changed(self) -> list[str]:
        """What a case did outside; it is put right for the next one."""
        after = self.state()
        names = sorted(p for p in after.keys() | self.before.keys() if after.get(p) != self.before.get(p))
        if names:
            shutil.rmtree(self.base)
            self.__init__()
        return [os.path.relpath(name, self.outside) for name in names]


def lay(tree: Mapping[str, bytes], folder: Path, changes: Changes = {}) -> None:  # noqa: B006
    """Write a tree of files with its changes."""
    for name, content in {**tree, **changes}.items():
        if content == "missing":
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            _special(path, content)


def lifted(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The files below some names in a folder as a tree."""
    paths = [
        p
        for name in names
        for p in (sorted((folder / name).rglob("*")) if (folder / name).is_dir() else [folder / name])
    ]
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in paths if p.is_file() and p.name != ".tessera-lock"
    }


def _special(path: Path, what: str) -> None:
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "socket":
        os.mknod(path, 0o140600)  # S_IFSOCK
    elif what.startswith("link"):
        target = {"link to itself": path.name, "link to nothing": "nowhere", "link outside": GROUND().outside}[what]
        path.symlink_to(target)


_ground: list[Ground] = []


def GROUND() -> Ground:
    if not _ground:
        _ground.append(Ground())
    return _ground[0]


# The law.


class TooLong(BaseException):
    """Not an Exception, so that no reader catches it."""


class Harm(BaseException):
    """Something was about to be run, or changed outside the case's folder; it is stopped here."""


@dataclass(frozen=True)
class Failure:
    """How a case ended otherwise than well."""

    kind: str
    seed: int
    error: str
    """The exception's type, or what else is wrong."""
    place: str
    """The innermost line of the package that had a part in it."""
    message: str
    about: str = ""
    case: Any = field(default=None, repr=False)
    trace: str = field(default="", repr=False)

    @property
    def group(self) -> tuple[str, str]:
        return self.error, self.place

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.seed} ({self.about}): {self.error} at {self.place}: {self.message}\n"
            f"again: python tests/fuzz/fuzz.py again '{self.kind}' {self.seed}"
        )


class Watch:
    """Stops what a reader must never do; one hook for the process, asleep outside of cases."""

    RUNS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn",
                      "os.fork", "os.forkpty", "socket.connect", "socket.getaddrinfo"})  # fmt: skip
    CHANGES = frozenset({"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink",
                         "os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move"})  # fmt: skip
    WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def __init__(self) -> None:
        self.awake, self.seen = False, ""
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple) -> None:
        if not self.awake:
            return
        if event in self.RUNS:
            self.stop(f"{event} {str(args)[:120]}")
        elif event == "open":
            path, _, how = args
            if isinstance(path, str | bytes | os.PathLike) and isinstance(how, int) and how & self.WRITES:
                self.inside(event, path, follow=True)
        elif event in self.CHANGES:
            paths = [a for a in args[:2] if isinstance(a, str | bytes | os.PathLike)]
            folders = [a for a in args[1:] if isinstance(a, int)][-len(paths) :]  # dir_fd, -1 where there is none
            for path in paths[event == "os.symlink" :]:
                beside = os.readlink(f"/proc/self/fd/{folders[-1]}") if folders and folders[-1] > 2 else ""
                self.inside(event, os.path.join(os.fsencode(beside), os.fsencode(path)), follow=False)

    def inside(self, event: str, path: Any, follow: bool) -> None:
        name = os.path.abspath(os.fsdecode(path))
        real = os.path.realpath(name) if follow else os.path.join(os.path.realpath(os.path.dirname(name)), "x")
        mine = (str(GROUND().case) + os.sep, "/dev/null", "/dev/tty", "/proc/self")
        if not (f"{real}{os.sep}".startswith(mine) or "__pycache__" in real):
            self.stop(f"{event} {name}")

    def stop(self, what: str) -> None:
        self.seen = self.seen or what
        raise Harm(what)


_watch: list[Watch] = []


@contextmanager
def _watched(seconds: float) -> Iterator[Watch]:
    """With the clock, the limit of memory and the watch on; in the place with other people's files."""
    if not _watch:
        _watch.append(Watch())
    watch, here, path = _watch[0], os.getcwd(), os.environ.get("PATH", "")

    def ring(*_: object) -> None:
        raise TooLong(f"more than {seconds:g} s")

    old = signal.signal(signal.SIGALRM, ring)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    os.chdir(GROUND().outside)
    os.environ["PATH"] = f"{GROUND().tools}{os.pathsep}{path}"
    watch.seen = ""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, hard))
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again each second, where a handler swallowed it
        watch.awake = True
        yield watch
    finally:
        watch.awake = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        os.environ["PATH"] = path
        os.chdir(here)


@contextmanager
def released(pipes: Sequence[Path], seconds: float) -> Iterator[None]:
    """Open named pipes from outside after a time, again and again, so that a library's call that waits for a writer comes back to Python,
    where the clock can stop it."""
    opening = "; ".join(["sleep $0; while :", "do sleep 0.1", *(f": <> '{pipe}'" for pipe in pipes), "done"])
    helper = subprocess.Popen(["sh", "-c", opening, str(seconds)], start_new_session=True) if pipes else None
    try:
        yield
    finally:
        if helper:
            os.killpg(helper.pid, signal.SIGKILL)
            helper.wait()


def must_end_well(
    call: Callable[[], Any], names: Sequence[str] = (), seconds: float = SECONDS, kind: str = "", seed: int = 0
) -> Failure | None:
    """Nothing where `call` returns, or raises one TesseraError whose message holds one of `names` (where there are
    any), within its time and memory, and nothing outside is changed or run; else how it failed."""
    found: tuple[str, str, str, str] | None = None
    try:
        with _watched(seconds) as watch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except TesseraError as error:
        if names and not any(name in str(error) for name in names):
            found = (
                "unnamed",
                _place(error),
                f"{str(error)[:300]} (none of {', '.join(names)} is named)",
                _text(error),
            )
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        found = (type(error).__name__, _place(error), str(error)[:300], _text(error))
    if watch.seen and not (found and found[0] == "Harm"):
        found = ("Harm", watch.seen.split()[0], watch.seen, "")
    if changed := GROUND().changed():
        found = ("Harm", "outside", f"changed {', '.join(changed)}", "")
    return found and Failure(kind, seed, *found[:3], trace=found[3])


def _place(error: BaseException) -> str:
    """file:line function of the innermost frame in the package; or what the error itself says."""
    if hasattr(error, "place"):
        return error.place
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/tessera/" in f.filename and "/tests/" not in f.filename] or frames
    if not own:
        return "nowhere"
    name = own[-1].filename.rpartition("/tessera/")[2]
    return f"{name}:{own[-1].lineno} {own[-1].name}"


def _text(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error, limit=-8))[-3000:]
    except Exception:
        return repr(error)[:300]
