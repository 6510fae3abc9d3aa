"""Atomic writes: a reader sees a file whole or not at all. It knows no contents."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tessera.files import own


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Lend a temporary path beside `path`. At the end the file is synchronised and renamed; after an error it is
    removed."""
    path = Path(path)
    fresh = path.with_name(own.temporary(path.name))
    try:
        yield fresh
        sync(fresh)
        fresh.replace(path)
    except BaseException:
        own.remove(fresh)
        raise


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file atomically: a reader, or a kill, leaves either the whole new file or the old one."""
    with whole(path) as fresh:
        fresh.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """fsync a file or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
