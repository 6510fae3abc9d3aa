"""Files from the network or a command, fetched once. It knows no contents."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from filelock import FileLock

from tessera.errors import CheckpointError, ConfigError
from tessera.files.atomic import whole, write_whole

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


COMMANDS: dict[str, list[str]] = {
    "gs://": ["gsutil", "cat", "{}"],
    "s3://": ["aws", "s3", "cp", "{}", "-"],
    "hdfs://": ["hdfs", "dfs", "-cat", "{}"],
}
"""How object stores are read: by their own tools, which get the address as one argument."""

PIPE = "pipe:"


def is_command(address: str) -> bool:
    """Whether reading an address starts a program."""
    return address.lstrip().startswith((PIPE, *COMMANDS))


def typed_by_the_user(address: str, source: str) -> None:
    """Raises ConfigError where an address that starts a program came out of a file that somebody else may have written.

    A command is run only when the user gave it: as a flag, as an argument, in the TOML file named by --config, or in
    Python. A run folder's config.json is data.
    """
    if is_command(address):
        raise ConfigError(
            f"{source} names a command to read its data with ({address[:200]!r}), and commands that come out of a file "
            "are never run. If you want to run it, give it yourself: --data.path ..."
        )


def command_of(address: str) -> list[list[str]]:
    """An address as programs with their arguments, each reading what the one before prints; no shell is involved.

    Raises ConfigError where pipe: holds more than programs joined by |.
    """
    for scheme, words in COMMANDS.items():
        if address.startswith(scheme):
            return [[word.format(address) if word == "{}" else word for word in words]]
    text = address.removeprefix(PIPE)
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError as error:
        raise ConfigError(f"The command '{text.strip()}' cannot be understood: {error}.") from error
    programs: list[list[str]] = [[]]
    for word in words:
        if word == "|":
            programs.append([])
        elif word and set(word) <= set("|&;<>()"):
            raise ConfigError(
                f"The command '{text.strip()}' holds '{word}'. It is not given to a shell: only programs with their "
                "arguments, joined by |, are run. Put anything else into a script and name that."
            )
        else:
            programs[-1].append(word)
    if not all(programs):
        raise ConfigError(f"The command '{text.strip()}' lacks a program; write for example pipe:curl -s URL | zcat.")
    return programs


def command_output(address: str, target: Path) -> Path:
    """What the programs of an address print, as a file; made once. Raises CheckpointError where one of them fails."""
    programs = command_of(address)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_file():
            with whole(target) as fresh, fresh.open("wb") as file:
                _run(programs, file)
    return target


def _run(programs: list[list[str]], out: IO[bytes]) -> None:
    """The one place that starts programs for data."""
    running: list[subprocess.Popen] = []
    with tempfile.TemporaryFile() as said:
        try:
            for i, words in enumerate(programs):
                source = running[-1].stdout if running else subprocess.DEVNULL
                sink = out if i == len(programs) - 1 else subprocess.PIPE
                running.append(subprocess.Popen(words, stdin=source, stdout=sink, stderr=said))
                if not isinstance(source, int) and source:
                    source.close()  # so that it hears when its reader ends
            statuses = [process.wait() for process in running]
        except OSError as error:
            for process in running:
                process.kill()
                process.wait()
            raise CheckpointError(f"The program '{error.filename}' cannot be started: {error.strerror}.") from error
        if any(statuses):
            said.seek(0)
            words = said.read()[-200:].decode("utf-8", "replace").strip()
            shown = " | ".join(shlex.join(p) for p in programs)
            raise CheckpointError(f"The command '{shown}' failed with status {max(statuses)}: {words}")


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
