"""Pairs of a picture and its captions, and what was left out. It knows no layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tessera.data.pictures import Member


@dataclass(frozen=True)
class Pair:
    """A picture and its captions. `key` is its path below the data folder, the same on every machine."""

    key: str
    image: Path | Member
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Skip:
    """A file or sample that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Folder:
    """What a data folder holds: pairs and skips, both sorted, and which layout it has."""

    layout: str
    pairs: tuple[Pair, ...]
    skipped: tuple[Skip, ...]
