"""Writing webdataset shards: of equal size, by several processes, read back, each with its checksum."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from io import BytesIO
from pathlib import Path

from tessera.data.pictures import SUFFIXES
from tessera.data.shards import index
from tessera.data.share import ALL, Share
from tessera.data.sources import Pair
from tessera.errors import ConfigError, DataError
from tessera.files import own, sums
from tessera.files.atomic import whole, write_whole
from tessera.files.claim import claim

AHEAD = 16
"""Shards that are handed to the processes before they are wanted."""


def pack(
    pairs: Sequence[Pair],
    out: Path,
    per_shard: int,
    progress: Callable[[Iterable, int], Iterable] = lambda items, total: items,
    mine: Share = ALL,
    verify: bool = False,
) -> tuple[list[Path], Sequence[int]]:
    """Write one process's share of shards of equal size, on all cores: pictures unchanged, captions as .txt. Each shard
    is read back. Returns all shards, and the numbers of those that others have still to write.

    After an interruption the same call resumes; `verify` writes again what does not agree with its checksum. Another
    list of pairs in the same folder is refused.
    """
    count = max(1, -(-len(pairs) // per_shard))
    digest = hashlib.blake2b("\n".join(p.key for p in pairs).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    plan = json.dumps({"pairs": len(pairs), "shards": count, "keys": digest})
    begin(out)
    started = out / "pack.json"
    if started.is_file() and started.read_bytes() != plan.encode():
        raise ConfigError(f"{out} holds shards of other pairs or another size. Name a new folder.")
    write_whole(started, plan)
    own.sweep(out)
    # The first `len % count` shards hold one pair more: no shard differs from another by more than one.
    cuts = [round(i * len(pairs) / count) for i in range(count + 1)]
    paths = [out / f"shard-{i:06d}.tar" for i in range(count)]
    done = sums.agrees if verify else Path.is_file
    todo = [i for i in mine.of(range(count)) if not done(paths[i])]
    jobs = ((paths[i], list(pairs[cuts[i] : cuts[i + 1]])) for i in todo)
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for _ in progress(_few_ahead(pool, jobs), len(todo)):
            pass
    return paths, [i for i in range(count) if not paths[i].is_file()]


def _few_ahead(pool: ProcessPoolExecutor, jobs: Iterable[tuple[Path, list[Pair]]]) -> Iterator[None]:
    """Write them, with few handed over before they are wanted: a million pairs waiting would fill the memory."""
    ahead: deque[Future[None]] = deque()
    for job in jobs:
        ahead.append(pool.submit(_write, job))
        if len(ahead) > AHEAD:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def damaged(folder: Path) -> list[str]:
    """The shards that do not hold what was written."""
    return [p.name for p in sorted(folder.glob("shard-*.tar")) if not sums.agrees(p)]


def begin(out: Path) -> None:
    """Claim the folder for shards, before any work. Raises ConfigError if it holds anything else."""
    ours = re.compile(r"pack\.json|shard-\d{6,}\.tar")
    claim(out, "shards", lambda old: all(ours.fullmatch(p.name) for p in old.iterdir()))


def _write(job: tuple[Path, list[Pair]]) -> None:
    path, pairs = job
    with whole(path) as fresh:
        sizes = _write_tar(fresh, pairs)
        members, reason = index(fresh)
        if reason or {n: m.size for n, m in members.items()} != sizes:
            raise DataError(f"{path} could not be written whole: {reason or 'its members differ'}.")
        sums.write(path, fresh)


def _write_tar(path: Path, pairs: list[Pair]) -> dict[str, int]:
    """Returns the size of each member."""
    sizes = {}
    with tarfile.open(path, "w") as tar:
        for i, pair in enumerate(pairs):
            suffix = Path(pair.key).suffix.lower()
            raw = pair.image.read_bytes()
            for extension, content in (
                (suffix if suffix in SUFFIXES else _kind(raw), raw),
                (".txt", "\n".join(pair.captions).encode()),
            ):
                info = tarfile.TarInfo(f"{i:06d}{extension}")
                info.size = sizes[info.name] = len(content)
                tar.addfile(info, BytesIO(content))
    return sizes


def _kind(raw: bytes) -> str:
    """The extension of a picture by its first bytes."""
    starts = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"}
    return next((extension for start, extension in starts.items() if raw.startswith(start)), ".tif")
