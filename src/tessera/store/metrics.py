"""The rows of numbers that a run writes. It knows no training."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tessera.files.atomic import write_whole

LARGEST = 2**63
"""No number that was counted is larger."""


def read_rows(file: Path) -> list[dict[str, float]]:
    """All rows, without damaged lines and lines that a kill cut off."""
    return list(_rows(file.read_bytes())) if file.is_file() else []


def _rows(content: bytes) -> Iterator[dict[str, float]]:
    for line in content.split(b"\n"):
        with suppress(ValueError, RecursionError):
            if _is_row(row := json.loads(line)):
                yield row


class Followed:
    """The rows of a file that grows: each look reads only what is new. A file that was replaced is read anew."""

    def __init__(self, file: Path):
        self.file, self.rows = file, list[dict[str, float]]()
        self._read, self._which = 0, 0

    def look(self) -> list[dict[str, float]]:
        """All rows so far."""
        if not self.file.is_file():
            return []
        with self.file.open("rb") as file:
            now = os.fstat(file.fileno())
            if now.st_ino != self._which or now.st_size < self._read:
                self.rows, self._read, self._which = [], 0, now.st_ino
            file.seek(self._read)
            content, line, _ = file.read().rpartition(b"\n")  # what follows is still being written
        self._read += len(content) + len(line)
        self.rows = [*self.rows, *_rows(content)]
        return self.rows


def _is_row(row: Any) -> bool:
    """A step, and numbers by name; a whole number may be too large for a float."""
    return isinstance(row, dict) and "step" in row and all(map(_is_number, row.values()))  # pyright: ignore


def _is_number(value: object) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < LARGEST)


def write_rows(file: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Replace all rows at once."""
    write_whole(file, "".join(json.dumps(row) + "\n" for row in rows))
