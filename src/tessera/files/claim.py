"""Folders that this program creates, resumes in, and locks while it works there. It knows no contents."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from tessera.errors import ConfigError
from tessera.files.atomic import write_whole
from tessera.files.own import MARKER, TEMPORARY, kind_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".tessera-lock"


def claim(folder: Path, kind: str, began: Callable[[Path], bool] = lambda folder: False) -> None:
    """Mark a folder as ours, or accept one that is.

    `began` recognises folders of releases that wrote no markers. Raises ConfigError if the folder holds anything else,
    is a file, or is a Tessera folder of another kind; then nothing in it is touched.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, not a folder. Name another.")
    found = kind_of(folder)
    if found and found != kind:
        raise ConfigError(f"{folder} holds a Tessera folder of another kind ({found}, not {kind}). Name a new folder.")
    if found:
        return
    names = sorted(n for n in os.listdir(folder) if not TEMPORARY.fullmatch(n)) if folder.is_dir() else []
    if names and kind_of(folder) != kind and not began(folder):  # another process may claim it in this moment
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise ConfigError(
            f"{folder} is not empty and Tessera did not begin it: it holds {shown}. Nothing was touched. "
            "Name a new or an empty folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / MARKER, json.dumps({"kind": kind}))
    except OSError as error:
        raise ConfigError(f"The folder {folder} cannot be written: {error}. Name another.") from error


class Lock:
    """Lock a folder until `release`, or until this process ends, however it ends.

    A POSIX record lock: it belongs to the process, so forked workers do not inherit it, and the kernel frees it after a
    SIGKILL. Raises ConfigError that names the holder if another process has it. On a system without such locks
    (Windows) nothing is locked.
    """

    def __init__(self, folder: Path):
        self.path = folder / LOCK
        self.file: IO[str] | None = None

    @property
    def held(self) -> bool:
        return self.file is not None

    def acquire(self) -> None:
        if fcntl is None or self.file:
            return
        try:
            file = self.path.open("a+", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"The folder {self.path.parent} cannot be written: {error}. Name another.") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = _described(file.read())
            file.close()
            raise ConfigError(
                f"{self.path.parent} is in use by {holder}. Wait for it, stop it, or name another folder."
            ) from None
        except OSError:  # a file system without locks
            file.close()
            return
        self.file = file
        with suppress(OSError):  # a full disk: the lock holds all the same, only its owner has no name
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            file.flush()

    def release(self) -> None:
        if self.file:
            with suppress(OSError):
                self.file.truncate(0)
            with suppress(OSError):
                self.file.close()
            self.file = None


def _described(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {int(holder['pid'])} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
