"""Files from the network or from programs, fetched once. The only module that starts programs; it knows no contents."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock

from tessera.errors import CheckpointError, ConfigError, install
from tessera.files.atomic import whole, write_whole

CACHE = Path(os.environ.get("TESSERA_CACHE", "~/.cache/tessera")).expanduser()
STORES = {"s3": "s3", "gs": "gs", "az": "azure", "abfs": "azure"}
"""Object stores by the scheme of their addresses, and the extra of this package with which fsspec reads each."""
TRIES = 8
"""How often a download is tried; each try resumes where the one before was cut off."""


def scheme_of(source: str) -> str:
    """The scheme of an address (s3 of s3://bucket/x); empty for a path."""
    return source.partition("://")[0] if "://" in source else ""


def is_remote(source: str) -> bool:
    """Whether `download` reads a source."""
    return scheme_of(source) in ("http", "https", *STORES)


def fetch(source: str, cache: Path) -> Path:
    """The file that a source names, on this disk. Remote files are downloaded into the cache, by one process at a time.

    Raises CheckpointError if the file cannot be fetched, ConfigError for an address that Tessera does not read.
    """
    if starts_programs(source):
        return output(source, cache)
    if is_remote(source):
        return download(source, cached(source, cache), tries=TRIES)
    if scheme := scheme_of(source):
        raise ConfigError(
            f"{source[:200]}: Tessera does not read {scheme}:// itself. Name a program that prints the file, for "
            f"example '{PIPE}hdfs dfs -cat {source[:200]}'."
        )
    path = Path(source).expanduser()
    if not path.is_file():
        raise CheckpointError("there is no such file")
    return path


def download(
    url: str, target: Path, sha256: str = "", tries: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:  # fmt: skip
    """Download a file once: by one process at a time, resumed after a broken connection, checked before it is renamed.

    Its SHA-256 is compared with `sha256` if that is given, stored beside the file, and compared at each later use.
    Raises CheckpointError that names the address if there is no network.
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
            except OSError as error:
                refused = isinstance(error, FileNotFoundError | PermissionError)
                if not left or refused or getattr(error, "code", 500) in (401, 403, 404):
                    raise CheckpointError(
                        f"{url} cannot be fetched ({error}). Fetch it where there is a network, and give the file's "
                        "path; or give the same command again to resume."
                    ) from error
                time.sleep(0.2 * (tries - left))
        found = checksum(part)
        if sha256 and found != sha256:
            part.unlink()
            raise CheckpointError(f"What came from {url} has the SHA-256 {found}, not {sha256}; it was deleted.")
        write_whole(about, found.encode())
        part.replace(target)
    return target


PIPE = "pipe:"

_QUOTED = r'''\\.|'[^']*'|"(?:\\.|[^"\\])*"'''
_PARTS = re.compile(rf"""(?:{_QUOTED}|[^|'"\\])+|\|""", re.DOTALL)


def starts_programs(source: str) -> bool:
    """Whether reading a source starts programs on this machine. The user must have typed such a source."""
    return source.startswith(PIPE)


def programs_of(source: str) -> list[list[str]]:
    """The programs of a `pipe:` source, each with its arguments. The output of each is the input of the next.

    No shell is started: `pipe:curl -s URL | zcat` is two programs. Quotes, and ~/ at the beginning of a word, mean what
    they mean in a shell. Raises ConfigError for anything else on which a shell would act.
    """
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
    """The output of a `pipe:` source as a file in the cache. It is made once for each command, working folder, and
    state of the files that the command names. Raises CheckpointError if a program fails."""
    programs = programs_of(source)
    named = [stamp(Path(word)) for words in programs for word in words[1:]]
    target = cached(source, cache, Path.cwd(), *named)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_file():
            with whole(target) as fresh, fresh.open("wb") as file:
                run_programs(programs, file)
    return target


def cached(source: str, cache: Path, *about: object) -> Path:
    """The path in the cache for `source`; `about` distinguishes versions of it."""
    key = hashlib.blake2b("\n".join(map(str, (source, *about))).encode("utf-8", "surrogateescape"), digest_size=8)
    return cache / f"{key.hexdigest()}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', source)[-60:]}"


def stamp(path: Path) -> str:
    """A file's real path, its size, and when it changed."""
    try:
        found = path.stat()
        return f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"
    except (OSError, ValueError):
        return ""


def run_programs(programs: Sequence[Sequence[str]], out: IO[bytes]) -> None:
    """Run a pipeline of programs and write its output to `out`. Nothing else in Tessera starts a program.

    Raises CheckpointError with their messages if one fails. One whose reader stopped early (SIGPIPE) did not fail.
    """
    running: list[subprocess.Popen] = []
    with tempfile.TemporaryFile() as said:
        try:
            for place, words in enumerate(programs):
                before = running[-1].stdout if running else subprocess.DEVNULL
                after = out if place == len(programs) - 1 else subprocess.PIPE
                running.append(subprocess.Popen(list(words), stdin=before, stdout=after, stderr=said))
                if place:
                    before.close()  # type: ignore[union-attr]  # or the one before would get no SIGPIPE
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
    open_at = _from_store if scheme_of(url) in STORES else _from_server
    before = part.stat().st_size if part.exists() else 0
    with open_at(url, before) as (source, done, total), part.open("ab" if done else "wb") as file:
        while chunk := source.read(1 << 20):
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    if total and done < total:
        raise OSError(f"{done} of {total} bytes came")


Opened = tuple[IO[bytes], int, int]
"""The rest of a file, the number of bytes before it, and the size of the whole file (0 if unknown)."""


@contextmanager
def _from_server(url: str, done: int) -> Iterator[Opened]:
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        source = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not done:
            raise
        yield io.BytesIO(), done, done  # nothing is left to fetch
        return
    with source:
        done = done if source.status == 206 else 0
        yield source, done, done + int(source.headers.get("Content-Length") or 0)


@contextmanager
def _from_store(url: str, done: int) -> Iterator[Opened]:
    import fsspec

    scheme = scheme_of(url)
    try:
        store = fsspec.filesystem(scheme)
        size = int(store.size(url))
        with store.open(url, "rb") as source:
            done = done if done <= size else 0
            source.seek(done)
            yield source, done, size
    except ImportError as error:
        raise CheckpointError(f"{url} needs another package: {install(STORES[scheme])}.") from error
    except OSError:
        raise
    except Exception as error:  # each store's library has its own errors
        raise OSError(f"{type(error).__name__}: {str(error)[:200]}") from error


def checksum(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
