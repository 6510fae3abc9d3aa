"""Which of the pictures that a run was made of are in a folder: whether it was drawn only from what somebody owns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tessera.data.check import sha256_of
from tessera.data.find import find
from tessera.data.pictures import SUFFIXES, Member
from tessera.data.shards import are_shards
from tessera.errors import DataError
from tessera.store.manifest import Manifest, missing

SHOWN = 20
"""Missing pictures that are named."""


@dataclass(frozen=True)
class Owned:
    """A manifest held against a folder."""

    learned: int
    """Pictures that left a trace in the weights."""
    looked_at: int
    """Pictures in the folder."""
    missing: tuple[str, ...]
    """SHA-256 of those that are not in it."""

    def told(self, manifest: Manifest) -> list[str]:
        """The answer in sentences; the first is the short one."""
        of, these = f"{self.learned:,} pictures that it was made of are", f"among these {self.looked_at:,}."
        answer = f"No: {len(self.missing):,} of the {of} not {these}" if self.missing else f"Yes: all {of} {these}"
        return [answer, *(f"  {sha}" for sha in self.missing[:SHOWN]), *reservations(manifest)]


def reservations(manifest: Manifest) -> list[str]:
    """What a manifest cannot say of pictures."""
    found = [f"Weights of others had a part: {f.part}: {f.name}." for f in manifest.foreign]
    found += [f"Nothing is known of: {part}." for part in manifest.unknown]
    if manifest.unread:
        found.append(f"{manifest.unread:,} pictures could not be read when the manifest was written.")
    return found


def held_against(
    manifest: Manifest, place: str, progress: Callable[[Iterable, int], Iterable] = lambda items, total: items
) -> Owned:
    """Look for every picture of a manifest in a folder, whatever it is called there, or in any data set that `check`
    reads. Raises DataError where there is no picture."""
    images = _all(place)
    found = set[str]()
    for image in progress(images, len(images)):
        try:
            found.add(sha256_of(image))
        except (DataError, OSError):  # it cannot be read, so it shows nothing
            continue
    if not found:
        raise DataError(f"{place} holds no picture that can be read.")
    return Owned(len(manifest.drawn_from), len(found), tuple(missing(manifest, found)))


def _all(place: str) -> Sequence[Path | Member]:
    """Every picture file in a folder, with a caption or without; of anything else its pairs."""
    folder = Path(place).expanduser()
    if not folder.is_dir() or are_shards(place):
        return [pair.image for pair in find(place, "").pairs]
    walk = ((at, name) for at, _, names in os.walk(folder) for name in names)
    return sorted(Path(at) / name for at, name in walk if Path(name).suffix.lower() in SUFFIXES)
