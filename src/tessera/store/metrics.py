"""The rows of numbers that a run writes. It knows no training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from tessera.files.atomic import write_whole


def read_rows(file: Path) -> list[dict[str, float]]:
    """All rows, without damaged lines and lines that a kill cut off."""
    rows: list[dict[str, float]] = []
    for line in file.read_bytes().split(b"\n") if file.is_file() else []:
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and all(isinstance(v, int | float) for v in row.values()):  # pyright: ignore
                rows.append(row)  # pyright: ignore[reportUnknownArgumentType]
    return rows


def write_rows(file: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Replace all rows at once."""
    write_whole(file, "".join(json.dumps(row) + "\n" for row in rows))
