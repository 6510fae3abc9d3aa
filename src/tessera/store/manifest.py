"""manifest.json: of which pictures, and of whose weights, the weights of a run were made. It opens no picture.

A picture is named by the SHA-256 of its file, so that whoever holds the files can show that a model was made of these
alone, and nobody else learns what they show or what they are called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

from tessera.config.merging import read_json
from tessera.errors import CheckpointError, ConfigError
from tessera.files.atomic import write_whole

NAME = "manifest.json"
LEARNED, HELD, TOKENIZER, BEFORE = "learned", "held out", "image tokenizer", "before"
"""What became of a picture: the run learned it; the run measured itself by it; its image tokenizer learned it; the
network that it began from did."""
ROLES = (LEARNED, TOKENIZER, BEFORE, HELD)
DRAWN_FROM = (LEARNED, TOKENIZER, BEFORE)
"""The roles that leave a trace in the weights."""


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Weights of others that had a part in the training."""

    part: str
    """What they did."""
    name: str
    sha256: str = ""
    """Of the file that they came in, where there was one."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the weights of a run were made of."""

    schema: Literal["tessera-manifest"] = "tessera-manifest"
    version: Literal[1] = 1
    pictures: dict[str, str]
    """The SHA-256 of each picture's file, and its roles, joined by commas."""
    unread: Annotated[int, Ge(0)] = 0
    """Pictures whose files were not there any more when this was written."""
    foreign: tuple[Foreign, ...] = ()
    unknown: tuple[str, ...] = ()
    """Parts of which nobody wrote down what they were made of."""

    def having(self, *roles: str) -> list[str]:
        """The pictures that have one of these roles."""
        return [sha for sha, had in self.pictures.items() if set(had.split(", ")) & set(roles)]

    @property
    def drawn_from(self) -> list[str]:
        """All pictures that left a trace in the weights."""
        return self.having(*DRAWN_FROM)

    @property
    def digest(self) -> str:
        """The SHA-256 of the sorted list of the pictures in `drawn_from`, one a line: it names the set in one word."""
        return hashlib.sha256("".join(f"{sha}\n" for sha in sorted(self.drawn_from)).encode()).hexdigest()


EMPTY = Manifest(pictures={})


def read(folder: Path) -> Manifest | None:
    """That of a run folder; None where it has none. Raises CheckpointError where it cannot be read."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        found: Manifest = read_json(path, Manifest)
        if wrong := next((sha for sha in found.pictures if not _is_sha256(sha)), ""):
            raise ConfigError(f"{path}: {wrong[:70]!r} is not a SHA-256 of 64 letters 0-9, a-f.")
    except ConfigError as error:
        raise CheckpointError(f"{error} Restore it, or remove it to do without.") from error
    return found


def write(folder: Path, manifest: Manifest) -> None:
    """Whole or not at all."""
    pictures = dict(sorted(manifest.pictures.items()))
    write_whole(folder / NAME, json.dumps(asdict(replace(manifest, pictures=pictures)), indent=1))


def joined(one: Manifest, other: Manifest) -> Manifest:
    """Both: a picture has the roles of either. `unread` is the larger count, since both may count the same pictures."""
    pictures = {sha: _roles(one.pictures.get(sha, ""), other.pictures.get(sha, ""))
                for sha in one.pictures.keys() | other.pictures.keys()}  # fmt: skip
    return Manifest(
        pictures=pictures,
        unread=max(one.unread, other.unread),
        foreign=tuple(dict.fromkeys((*one.foreign, *other.foreign))),
        unknown=tuple(dict.fromkeys((*one.unknown, *other.unknown))),
    )


def of_files(files: Mapping[str, Sequence[str]]) -> Manifest:
    """Of lists of SHA-256 by role, where an empty one stands for a file that was not there."""
    found = EMPTY
    for role, hashes in files.items():
        found = joined(found, Manifest(pictures={sha: role for sha in hashes if sha}))
    return replace(found, unread=sum(1 for hashes in files.values() for sha in hashes if not sha))


def inherited(older: Manifest | None, role: str, part: str) -> Manifest:
    """What a run takes over from a network that it contains: all pictures that this one was made of, in one role.

    `part` says which network that is, for where nothing is known of it.
    """
    if older is None:
        return Manifest(pictures={}, unknown=(part,))
    kept = dict.fromkeys(older.drawn_from, role)
    unknown = tuple(f"{part}: {before}" if before != part else part for before in older.unknown)
    return Manifest(pictures=kept, unread=older.unread, foreign=older.foreign, unknown=unknown)


def _roles(*lists: str) -> str:
    had = {role for roles in lists for role in roles.split(", ") if role}
    return ", ".join(sorted(had, key=_rank))


def _rank(role: str) -> tuple[int, str]:
    return (ROLES.index(role) if role in ROLES else len(ROLES), role)


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def missing(manifest: Manifest, owned: Iterable[str]) -> list[str]:
    """The pictures that left a trace in the weights and are not among those that somebody owns."""
    return sorted(set(manifest.drawn_from) - set(owned))
