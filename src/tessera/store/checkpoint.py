"""A checkpoint's folder: its name, and checksums that detect a flipped bit or a lost file. It knows no model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError, safe_open

from tessera.config.merging import read_json
from tessera.errors import CheckpointError, ConfigError

CHECKSUMS = "checksums.json"
SETTINGS = "run.json"
"""The run's settings when the checkpoint was written."""


@dataclass(frozen=True)
class Checksums:
    """The content of checksums.json: each file's path below the folder, and its SHA-256."""

    sha256: dict[str, str]


def step_of(path: Path) -> int:
    """The step in a checkpoint's name; -1 for any other name."""
    match = re.fullmatch(r"step-([0-9]{6}|[1-9][0-9]{6,17})", path.name)
    return int(match[1]) if match else -1


def seal(folder: Path) -> None:
    """Write the checksums of all files in the folder. Call it last."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / CHECKSUMS)
    found = {p.relative_to(folder).as_posix(): _sha256(p) for p in files}
    (folder / CHECKSUMS).write_text(json.dumps({"sha256": found}, indent=1), "utf-8")


def verify(checkpoint: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Raises CheckpointError if a `wanted` file of a checkpoint is cut off, changed or missing.

    Checkpoints of releases before checksums are only checked for their sizes and their JSON.
    """
    try:
        if checkpoint.is_symlink():
            raise CheckpointError("it is a link, which may lead out of the run; put the folder itself in its place")
        if not checkpoint.is_dir():
            raise CheckpointError("it is not a folder")
        for name in ("config.json", "weights.safetensors"):
            if not (checkpoint / name).is_file():
                raise CheckpointError(f"{name} is missing")
        if _compare(checkpoint, wanted):
            return
        if (checkpoint / SETTINGS).exists():
            raise CheckpointError(f"{CHECKSUMS} is missing")
        for file in checkpoint.rglob("*"):
            name = file.relative_to(checkpoint).as_posix()
            if file.is_dir() or not wanted(name):
                continue
            if not file.is_file():  # reading a pipe would wait for ever
                raise CheckpointError(f"{name} is not a regular file")
            if file.suffix == ".safetensors":
                with safe_open(file, "pt"):  # compares what the header promises with the size of the file
                    pass
            elif file.name in ("config.json", "state.json"):
                read_json(file, dict)
    except (OSError, ValueError, SafetensorError, ConfigError, CheckpointError) as error:
        raise CheckpointError(f"{checkpoint.name} is damaged: {error}") from error


def _compare(folder: Path, wanted: Callable[[str], bool]) -> bool:
    """Compare the `wanted` files with their checksums. Returns whether the folder has checksums.

    Raises CheckpointError that names the first file that is missing or has changed.
    """
    if not (folder / CHECKSUMS).exists():
        return False
    try:
        listed: Checksums = read_json(folder / CHECKSUMS, Checksums)
        for name, digest in listed.sha256.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise CheckpointError(f"{CHECKSUMS} names {name[:60]}, which is outside of the folder")
            if not wanted(name):
                continue
            if not (folder / path).is_file():
                raise CheckpointError(f"{name} is missing")
            if _sha256(folder / path) != digest:
                raise CheckpointError(f"{name} has changed since it was written: its checksum differs")
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(str(error).replace(f"{folder}/", "")) from error
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
