"""Regular files only: nothing here opens a pipe, a socket or a device, or waits for one. It knows no contents."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from tessera.errors import DataError


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading. Raises DataError with the reason if that fails."""
    try:
        # A pipe could replace the file at any moment, so the opened file is checked, and opening does not wait.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise DataError(_reason(path, error)) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    raise DataError("not a regular file")


def read_regular(path: str | Path, most: int = 0) -> bytes:
    """The content of a regular file of at most `most` bytes (0: no limit)."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most and size > most:
            raise DataError(f"{size:,} bytes, more than the {most:,} that are accepted")
        try:
            return file.read()
        except (OSError, MemoryError) as error:
            raise DataError(_words(error)) from error


def _reason(path: str | Path, error: OSError | ValueError) -> str:
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError):
        return "the file is not there" if isinstance(error, FileNotFoundError | ValueError) else _words(error)
    if stat.S_ISLNK(mode) and not os.path.exists(path):
        return "a link that leads nowhere"
    return _words(error) if stat.S_ISREG(mode) or stat.S_ISLNK(mode) else "not a regular file"


def _words(error: Exception) -> str:
    return f"it cannot be read: {getattr(error, 'strerror', None) or error}"
