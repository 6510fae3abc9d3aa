"""The data set check: opens every picture once, lists every problem with its reason, and proposes settings."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tessera.config.merging import read_json
from tessera.data.find import find
from tessera.data.pictures import Member, decode
from tessera.data.sources import Folder, Pair, Skip
from tessera.errors import ConfigError, DataError
from tessera.files.atomic import write_whole
from tessera.files.regular import read_regular
from tessera.machine.launch import holding_signals, leave_signals_to_the_parent


@dataclass(frozen=True)
class Checked:
    """A pair whose picture was decoded whole."""

    pair: Pair
    width: int
    height: int
    fingerprint: str
    """Of its pixels."""
    sha256: str = ""
    """Of its file."""


class Fit(TypedDict):
    """Settings that fit a data set."""

    pixels: int
    longest_caption_words: int
    holdout: float
    flip: bool


@dataclass(frozen=True)
class Health:
    """What `check` found; both lists are sorted by path."""

    layout: str
    good: tuple[Checked, ...]
    skipped: tuple[Skip, ...]

    @property
    def pairs(self) -> list[Pair]:
        return [c.pair for c in self.good]

    @property
    def captions(self) -> list[str]:
        return [caption for c in self.good for caption in c.pair.captions]

    def duplicates(self) -> list[list[str]]:
        """Groups of pictures with equal pixels."""
        groups: dict[str, list[str]] = defaultdict(list)
        for c in self.good:
            groups[c.fingerprint].append(c.pair.key)
        return [keys for keys in groups.values() if len(keys) > 1]

    def settings(self) -> Fit:
        """What Tessera would choose for this data."""
        short = statistics.median(min(c.width, c.height) for c in self.good)
        words = [len(c.split()) for c in self.captions]
        sided = sum(1 for c in self.captions if {"left", "right"} & set(c.lower().split()))
        return {
            "pixels": next((side for side in (256, 128, 64, 32) if short >= side), 16),
            "longest_caption_words": max(words),
            "holdout": 0.05 if len(self.good) >= 1000 else 0.1,
            "flip": sided < 0.01 * len(words),
        }

    def to_json(self) -> dict[str, object]:
        return {
            "layout": self.layout,
            "pairs": [
                {"image": show(c.pair.key), "captions": len(c.pair.captions), "width": c.width, "height": c.height}
                for c in self.good
            ],
            "skipped": [{"path": show(s.path), "reason": s.reason} for s in self.skipped],
            "duplicates": [[show(k) for k in keys] for keys in self.duplicates()],
            "settings": self.settings(),
        }


def show(path: str) -> str:
    """A path fit for a screen: control characters and bytes that are not UTF-8 are escaped."""
    safe = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)


def check(
    path: str,
    captions: str = "",
    cache: Path | None = None,
    progress: Callable[[Iterable, int], Iterable] | None = None,
) -> Health:
    """Scan the data and decode every picture, on all cores. `cache` skips files that did not change since.

    Raises DataError if no pair is left.
    """
    folder = find(path, captions)
    known = _remembered(cache) if cache else {}
    stamps = [_stamp(pair.image) for pair in folder.pairs]
    todo = [i for i, stamp in enumerate(stamps) if stamp not in known]
    ahead = progress or (lambda items, total: items)
    images = [folder.pairs[i].image for i in todo]
    for i, result in zip(todo, ahead(_inspect_all(images), len(todo)), strict=True):
        known[stamps[i]] = result
    if cache and todo:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache, json.dumps({stamp: known[stamp] for stamp in stamps}))
    return _health(path, folder, [known[stamp] for stamp in stamps])


def _remembered(cache: Path) -> dict[str, list]:
    """What an earlier check found; empty if its file is missing or damaged."""
    try:
        known: dict[str, list] = read_json(cache, dict[str, list])
    except ConfigError:
        return {}
    return {stamp: found for stamp, found in known.items() if list(map(type, found)) == [int, int, str, str]}


def _health(path: str, folder: Folder, results: list[list]) -> Health:
    good, skipped = [], list(folder.skipped)
    for pair, (width, height, fingerprint_or_reason, sha256) in zip(folder.pairs, results, strict=True):
        if width:
            good.append(Checked(pair, width, height, fingerprint_or_reason, sha256))
        else:
            skipped.append(Skip(pair.key, fingerprint_or_reason))
    if not good:
        reasons = Counter(s.reason for s in skipped).most_common(3)
        told = "; ".join(f"{reason} ({count})" for reason, count in reasons)
        raise DataError(f"None of the {len(skipped)} pictures of {path} can be used: {told}.")
    return Health(folder.layout, tuple(good), tuple(sorted(skipped, key=lambda s: os.fsencode(s.path))))


def _stamp(image: Path | Member) -> str:
    try:
        stat = image.stat() if hasattr(image, "stat") else os.stat_result([0] * 10)
        return f"{os.fsencode(image)!r} {stat.st_size} {stat.st_mtime_ns}"
    except OSError:
        return f"{os.fsencode(image)!r} gone"


def _inspect(image: Path | Member) -> list:
    """[width, height, fingerprint, SHA-256 of the file], or [0, 0, reason, ""]."""
    try:
        picture = decode(image)
        sha256 = sha256_of(image)
    except DataError as error:
        return [0, 0, str(error), ""]
    fingerprint = hashlib.blake2b(picture.numpy().tobytes(), digest_size=12).hexdigest()
    return [picture.shape[2], picture.shape[1], fingerprint, sha256]


def sha256_of(image: Path | Member) -> str:
    """Of a picture's file, as `sha256sum` tells it. Raises DataError where it cannot be read."""
    raw = read_regular(image) if isinstance(image, str | Path) else image.read_bytes()
    return hashlib.sha256(raw).hexdigest()


def hashes(pairs: Sequence[Pair], cache: Path) -> list[str]:
    """The SHA-256 of each pair's picture: as `check` found it, where its cache has it and the file did not change
    since; else as the file is now; empty where that cannot be read any more."""
    known = _remembered(cache)
    return [known[stamp][3] if (stamp := _stamp(p.image)) in known else _now(p.image) for p in pairs]


def _now(image: Path | Member) -> str:
    try:
        return sha256_of(image)
    except (DataError, OSError):
        return ""


def _inspect_all(images: list[Path | Member]) -> Iterable[list]:
    if len(images) < 200:
        yield from map(_inspect, images)
        return
    count, start = min(os.cpu_count() or 1, 8), leave_signals_to_the_parent
    with ProcessPoolExecutor(count, initializer=start, initargs=(os.getpid(),)) as pool:
        with holding_signals():  # while the processes start
            found = pool.map(_inspect, images, chunksize=32)
        yield from found
