"""Which folders and files are this program's own; the only module that deletes. It knows no contents.

A folder is ours if it holds the marker that `claim` writes. A name is ours if it matches OWN. Only a path with such a
name, in such a folder, is ever removed; a link is removed, never what it points to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path

from tessera.errors import DataError
from tessera.files.regular import read_regular

MARKER = ".tessera"
"""In every folder that this program created: one JSON object, {"kind": "run"}."""

LONGEST = 10_000
"""Bytes of a marker, at most."""

HOST = re.sub(r"\W", "", socket.gethostname())[:16] or "host"

TEMPORARY = re.compile(r"\.tessera-(\w+)-(\d+)-.+")
"""A file that is being written, with the machine and the process that write it."""

OWN = re.compile(
    r"\.?step-\d+|part-\d{5,}\.(npy|sum)|shard-\d{6,}\.(tar|sum)|(index|started|parts|pack|data|learn|config)\.json|"
    r"latest|best"
)
"""Names of files that this program may later remove or replace."""


def temporary(name: str) -> str:
    """The temporary name under which this process writes `name`."""
    return f".tessera-{HOST}-{os.getpid()}-{name}"


def kind_of(folder: Path) -> str:
    """The kind of thing for which this program created the folder; empty if it did not."""
    try:
        found = json.loads(read_regular(folder / MARKER, LONGEST))
    except (DataError, ValueError, RecursionError):
        return ""
    kind = found.get("kind") if isinstance(found, dict) else ""
    return kind if isinstance(kind, str) else ""


def remove(path: Path) -> None:
    """Remove a file or folder of our own, if it exists. All deleting goes through here."""
    temporary_name, name = TEMPORARY.fullmatch(path.name), OWN.fullmatch(path.name)
    assert temporary_name or (name and kind_of(path.parent)), f"{path} is not ours to remove"
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path, locked: bool = False) -> None:
    """Remove the half-written files of dead processes from a folder of ours, or from a plain folder inside it. Other
    hidden files stay.

    `locked`: the caller holds the folder's lock, so no other process can be writing there.
    """
    ours = folder.is_dir() and (kind_of(folder) or kind_of(folder.parent))
    for path in folder.iterdir() if ours else ():
        match = TEMPORARY.fullmatch(path.name)
        if match and (locked or (match[1] == HOST and not _alive(int(match[2])))):
            remove(path)


def _alive(pid: int) -> bool:
    """Whether another process has this number. What this process left behind was left by mistake."""
    import psutil

    return pid != os.getpid() and pid < 2**31 and psutil.pid_exists(pid)
