"""Files from the network or a command, fetched once. It knows no contents."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from tessera.errors import CheckpointError
from tessera.files.atomic import write_whole

CACHE = Path(os.environ.get("TESSERA_CACHE", "~/.cache/tessera")).expanduser()
TRIES = 8
"""Connections that may break before a download is given up; each goes on where the one before was cut off."""


def download(
    url: str, target: Path, sha256: str = "", tries: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:  # fmt: skip
    """Fetch a file once: resumed where it was cut off, by one process at a time, checked before it gets its name.

    Its SHA-256 is compared with `sha256` where that is known, kept beside the file, and compared at each later use.
    Raises CheckpointError with the address where there is no network.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        about = target.with_name(target.name + ".sha256")
        if target.is_file():
            if about.is_file() and about.read_text().strip() != _sha256(target):
                raise CheckpointError(f"{target} has changed since it was downloaded; remove it to fetch it again.")
            return target
        part = target.with_name(target.name + ".part")
        for left in reversed(range(tries)):
            try:
                _fetch(url, part, progress)
                break
            except (urllib.error.URLError, OSError) as error:
                if not left or getattr(error, "code", 500) in (401, 403, 404):
                    raise CheckpointError(
                        f"{url} cannot be fetched ({error}). Fetch it where there is a network, and give the file's "
                        "path; the same command goes on with what has come so far."
                    ) from error
                time.sleep(0.2 * (tries - left))
        found = _sha256(part)
        if sha256 and found != sha256:
            part.unlink()
            raise CheckpointError(f"What came from {url} has the SHA-256 {found}, not {sha256}; it was thrown away.")
        write_whole(about, found.encode())
        part.replace(target)
    return target


def command_output(command: str, target: Path) -> Path:
    """What a shell command prints, as a file; made once. Raises CheckpointError where the command fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_file():
            part = target.with_name(target.name + ".part")
            with part.open("wb") as file:
                done = subprocess.run(command, shell=True, stdout=file, stderr=subprocess.PIPE)
            if done.returncode:
                words = done.stderr.decode("utf-8", "replace").strip()[-200:]
                raise CheckpointError(f"The command '{command}' failed with status {done.returncode}: {words}")
            part.replace(target)
    return target


def _fetch(url: str, part: Path, progress: Callable[[int, int], None]) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        source = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing is left to fetch
            return
        raise
    with source:
        resumed = source.status == 206
        done = done if resumed else 0
        total = done + int(source.headers.get("Content-Length") or 0)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := source.read(1 << 20):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total and done < total:
        raise OSError(f"{done} of {total} bytes came")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
