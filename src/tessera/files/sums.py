"""Checksums beside files: x.npy has x.sum. They know no contents."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tessera.errors import DataError
from tessera.files.atomic import write_whole
from tessera.files.regular import read_regular

CHUNK = 1 << 20


def beside(path: Path) -> Path:
    """Where the checksum of a file lies."""
    return path.with_suffix(".sum")


def write(path: Path, content: Path) -> None:
    """Write the checksum that `path` will have, of the file that is about to become it."""
    write_whole(beside(path), _of(content))


def agrees(path: Path) -> bool:
    """Whether a file is there and holds what was written; one that never had a checksum is believed."""
    if not path.is_file():
        return False
    try:
        wanted = read_regular(beside(path), 200)
    except DataError:
        return True
    return wanted.decode("utf-8", "replace") == _of(path)


def _of(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()
