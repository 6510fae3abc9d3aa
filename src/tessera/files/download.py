"""Files from the network or from programs, fetched once; the only place that starts programs. It knows no contents."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
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
            if about.is_file() and about.read_text().strip() != checksum(target):
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
        found = checksum(part)
        if sha256 and found != sha256:
            part.unlink()
            raise CheckpointError(f"What came from {url} has the SHA-256 {found}, not {sha256}; it was thrown away.")
        write_whole(about, found.encode())
        part.replace(target)
    return target


PIPE = "pipe:"
STORES = {
    "gs://": ("gsutil", "cat", "{}"),
    "s3://": ("aws", "s3", "cp", "{}", "-"),
    "hdfs://": ("hdfs", "dfs", "-cat", "{}"),
}
"""How object stores are read: by their own tools, which get the address as one argument."""

_QUOTED = r'''\\.|'[^']*'|"(?:\\.|[^"\\])*"'''
_PARTS = re.compile(rf"""(?:{_QUOTED}|[^|'"\\])+|\|""", re.DOTALL)


def starts_programs(source: str) -> bool:
    """Whether reading a source starts programs on this machine. Such a source must have been typed by the user."""
    return source.startswith((PIPE, *STORES))


def programs_of(source: str) -> list[list[str]]:
    """The programs that print a source, each with its arguments; the output of each is the input of the next.

    There is no shell: `pipe:curl -s URL | zcat` is two programs. Quotes are understood as a shell does, and ~/ at the
    beginning of a word; whatever else a shell would act on is refused. Raises ConfigError.
    """
    for scheme, words in STORES.items():
        if source.startswith(scheme):
            return [[word.replace("{}", source) for word in words]]
    command = source.removeprefix(PIPE).strip()
    parts = _PARTS.findall(command)
    bare = re.sub(_QUOTED, lambda m: re.sub(r"[^$`]", "", m[0]) if m[0].startswith('"') else "", command, flags=re.S)
    try:
        if "".join(parts) != command:
            raise ValueError("a quote is not closed")
        if acting := sorted(set(re.findall(r"[;&<>()$`\n]", bare))):
            raise ValueError(
                f"{' '.join(map(repr, acting))} would need one (inside single quotes it is a plain letter)"
            )
        programs = [[_home(w) for w in shlex.split(part)] for part in parts[::2]]
        if not all(programs) or len(parts) % 2 == 0 or set(parts[1::2]) - {"|"}:
            raise ValueError("a program is missing beside '|'")
    except ValueError as error:
        raise ConfigError(
            f"'{source[:200]}' cannot be run without a shell: {error}. Write programs with their arguments, joined by "
            "'|', or put the command into a script and name that."
        ) from error
    return programs


def _home(word: str) -> str:
    return os.path.expanduser(word) if word.startswith("~/") else word


def output(source: str, cache: Path) -> Path:
    """What the programs of a source print, as a file in the cache; made once for each command, folder, and state of the
    files that it names. Raises CheckpointError where a program fails."""
    programs = programs_of(source)
    named = [stamp(Path(word)) for words in programs for word in words[1:]]
    target = cached(source, cache, *([Path.cwd(), *named] if source.startswith(PIPE) else []))
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_file():
            with whole(target) as fresh, fresh.open("wb") as file:
                run_programs(programs, file)
    return target


def cached(source: str, cache: Path, *about: object) -> Path:
    """Where something that came from `source`, and is as `about` says, is kept."""
    key = hashlib.blake2b("\n".join(map(str, (source, *about))).encode("utf-8", "surrogateescape"), digest_size=8)
    return cache / f"{key.hexdigest()}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', source)[-60:]}"


def stamp(path: Path) -> str:
    """Of a file: where it really is, how large, and when it changed."""
    try:
        found = path.stat()
        return f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"
    except (OSError, ValueError):
        return ""


def run_programs(programs: Sequence[Sequence[str]], out: IO[bytes]) -> None:
    """Run programs whose outputs are the next one's input, the last one's into `out`. Nothing else starts a program.

    Raises CheckpointError with what they said where one fails; one that the next no longer listens to does not.
    """
    running: list[subprocess.Popen] = []
    with tempfile.TemporaryFile() as said:
        try:
            for place, words in enumerate(programs):
                before = running[-1].stdout if running else subprocess.DEVNULL
                after = out if place == len(programs) - 1 else subprocess.PIPE
                running.append(subprocess.Popen(list(words), stdin=before, stdout=after, stderr=said))
                if place:
                    before.close()  # type: ignore[union-attr]  # or the one before would not notice that nobody reads
            codes = [process.wait() for process in running]
        except OSError as error:
            raise CheckpointError(f"The program '{words[0]}' cannot be started: {error.strerror}.") from error
        finally:
            for process in running:
                if process.stdout:
                    process.stdout.close()
                if process.poll() is None:
                    process.kill()
                    process.wait()
        for place, (words, code) in enumerate(zip(programs, codes, strict=True)):
            unheard = code == -getattr(signal, "SIGPIPE", 0) and place < len(programs) - 1
            if code and not unheard:
                said.seek(max(0, said.tell() - 200))
                told = said.read().decode("utf-8", "replace").strip()
                raise CheckpointError(f"The command '{shlex.join(words)}' failed with status {code}: {told}")


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


def checksum(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
