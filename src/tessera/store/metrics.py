"""The rows of numbers that a run writes. It knows no training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tessera.files.atomic import write_whole

LARGEST = 2**63
"""No number that was counted is larger."""


def read_rows(file: Path) -> list[dict[str, float]]:
    """All rows, without damaged lines and lines that a kill cut off."""
    rows: list[dict[str, float]] = []
    for line in file.read_bytes().split(b"\n") if file.is_file() else []:
        with suppress(ValueError, RecursionError):
            if _is_row(row := json.loads(line)):
                rows.append(row)
    return rows


def _is_row(row: Any) -> bool:
    """A step, and numbers by name; a whole number may be too large for a float."""
    return isinstance(row, dict) and "step" in row and all(map(_is_number, row.values()))  # pyright: ignore


def _is_number(value: object) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < LARGEST)


def write_rows(file: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Replace all rows at once."""
    write_whole(file, "".join(json.dumps(row) + "\n" for row in rows))
