"""A list of checksums in a folder of several files, so that a flipped bit or a lost file is noticed. It knows no
contents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tessera.errors import CheckpointError, ConfigError
from tessera.settings import read_json

NAME = "checksums.json"


@dataclass(frozen=True)
class Checksums:
    """What checksums.json holds: each file's path below the folder, and its SHA-256."""

    sha256: dict[str, str]


def write(folder: Path) -> None:
    """List every file that is below the folder now; so it is written last."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / NAME)
    found = {p.relative_to(folder).as_posix(): _sha256(p) for p in files}
    (folder / NAME).write_text(json.dumps({"sha256": found}, indent=1), "utf-8")


def verify(folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> bool:
    """Hold the listed files whose name is `wanted` against the list; returns whether there is one.

    Raises CheckpointError that names the first file that is missing or has changed.
    """
    if not (folder / NAME).exists():
        return False
    try:
        listed: Checksums = read_json(folder / NAME, Checksums)
        for name, digest in listed.sha256.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise CheckpointError(f"{NAME} names {name[:60]}, which is outside of the folder")
            if not wanted(name):
                continue
            if not (folder / path).is_file():
                raise CheckpointError(f"{name} is missing")
            if _sha256(folder / path) != digest:
                raise CheckpointError(f"{name} is not as it was written: its checksum differs")
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(str(error)) from error
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
