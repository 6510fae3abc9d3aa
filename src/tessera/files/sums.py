"""Checksums beside files: x.npy has x.sum. They know no contents."""

from __future__ import annotations

from pathlib import Path

from tessera.errors import DataError
from tessera.files.atomic import write_whole
from tessera.files.download import checksum
from tessera.files.regular import read_regular


def beside(path: Path) -> Path:
    """Where the checksum of a file lies."""
    return path.with_suffix(".sum")


def write(path: Path, content: Path) -> None:
    """Write the checksum that `path` will have, of the file that is about to become it."""
    write_whole(beside(path), checksum(content))


def agrees(path: Path) -> bool:
    """Whether a file is there and holds what was written; one that never had a checksum is believed."""
    if not path.is_file():
        return False
    try:
        wanted = read_regular(beside(path), 200)
    except DataError:
        return True
    return wanted.decode("utf-8", "replace") == checksum(path)
