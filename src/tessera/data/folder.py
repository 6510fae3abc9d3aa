"""Folders of captioned pictures in every usual layout, as a sorted list of pairs. It opens no picture."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tessera.data import captions as texts
from tessera.data import tables
from tessera.data.pictures import OTHERS, SUFFIXES
from tessera.data.sources import Folder, Pair, Skip
from tessera.data.tables import Row
from tessera.errors import ConfigError, DataError
from tessera.files.regular import read_regular

SINGLY = 3
"""Up to this number, unused files of a kind are named one by one; more are counted."""


def scan(path: str, captions: str = "") -> Folder:
    """Find the pairs below `path`. `captions` is a second tree of texts, or a COCO JSON file elsewhere.

    Raises ConfigError if the folder does not exist, DataError if it holds no pair.
    """
    root = Path(path).expanduser()
    if not os.path.isdir(root):
        what = "is a file, not a folder" if os.path.exists(root) else "does not exist"
        raise ConfigError(f"The data folder {path} {what}. Name the folder with your captioned pictures.")
    second = Path(captions).expanduser() if captions else None
    if second and not (os.path.isdir(second) or os.path.isfile(second)):
        what = "is neither a folder nor a regular file" if os.path.exists(second) else "does not exist"
        raise ConfigError(f"data.captions {captions} {what}. Name a folder of texts or a COCO captions file.")
    folder = _read_layout(root, second)
    if not folder.pairs:
        first = "".join(f" {s.path}: {s.reason}." for s in folder.skipped[:1])
        raise DataError(
            f"{path} holds no captioned picture ({len(folder.skipped)} left out).{first} A picture needs a text file "
            "of the same name, a metadata.csv, .jsonl or .parquet with file_name and text, or a COCO captions JSON."
        )
    return folder


def _read_layout(root: Path, second: Path | None) -> Folder:
    files, skipped = walk(root)
    if second and os.path.isfile(second):
        return _listed("coco", root, files, tables.read_coco(second), skipped)
    there = {file.name: file for file in files if file.parent == root}
    for name, read in tables.READERS.items():
        if name in there and os.path.isfile(there[name]):
            return _listed(name, root, files, read(there[name]), skipped)
        if name in there:
            skipped.append(Skip(name, "not a regular file"))
    rows: list[Row] = []
    for file in files:
        if file.suffix == ".json" and file.parent in (root, root / "annotations") and tables.may_be_coco(file):
            try:
                rows += tables.read_coco(file)
            except DataError as error:
                skipped.append(Skip(file.relative_to(root).as_posix(), str(error).rstrip(".")))
    if rows:
        return _listed("coco", root, files, rows, skipped)
    if not second:
        return _matched(root, root, files, files, skipped)
    apart, more = walk(second)
    return _matched(root, second, files, apart, skipped + more)


def walk(root: Path) -> tuple[list[Path], list[Skip]]:
    """All files below `root`, sorted, and the entries that cannot be read.

    Each folder is visited once: a link is followed unless its folder was visited already.
    """
    seen: set[str] = set()
    files: list[Path] = []
    skipped: list[Skip] = []
    waiting = [str(root)]

    def leave(path: str, error: OSError) -> None:
        skipped.append(Skip(os.path.relpath(path, root), f"it cannot be looked at: {error.strerror}"))

    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        below = []
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda e: os.fsencode(e.name))
        except OSError as error:
            leave(folder, error)
            continue
        for entry in listed:
            if entry.name.startswith("."):
                continue
            try:
                (below if entry.is_dir() else files).append(entry.path)  # type: ignore[arg-type]
            except OSError as error:  # a link to itself, for one
                leave(entry.path, error)
        waiting += reversed(below)
    return sorted(map(Path, files)), skipped


def _matched(root: Path, text_root: Path, files: list[Path], others: list[Path], skipped: list[Skip]) -> Folder:
    """Text files beside their pictures or in a second tree, matched by the longest common end of the path."""
    images = [f for f in files if f.suffix.lower() in SUFFIXES]
    beside = {(f.parent, f.stem): f for f in [*others, *files] if f.suffix.lower() == ".txt"}
    taken = {beside[key] for i in images if (key := (i.parent, i.stem)) in beside}
    wanted = {i.stem for i in images if (i.parent, i.stem) not in beside}
    free = [f for f in others if f.suffix.lower() == ".txt" and f not in taken and f.stem in wanted]
    farther = Endings(text_root, free)
    pairs, apart = [], False
    for image in images:
        key = image.relative_to(root).as_posix()
        text = beside.get((image.parent, image.stem)) or farther.find(image.relative_to(root))
        if isinstance(text, str):
            skipped.append(Skip(key, text))
            continue
        taken.add(text)
        apart |= text.parent != image.parent
        _add(pairs, skipped, key, image, lambda text=text: _captions(text))
    skipped += _unused(root, files)
    alone = [
        _below(f, root, text_root)
        for f in dict.fromkeys([*files, *others])
        if f.suffix.lower() == ".txt" and f not in taken
    ]
    skipped += _named("a text without a picture of the same name", alone)
    return Folder("two trees" if apart else "same-name text", tuple(pairs), tuple(skipped))


class Endings:
    """Texts by every ending of their path, to find the one that shares the longest ending with a picture."""

    def __init__(self, root: Path, files: Sequence[Path]):
        self.by_ending: dict[str, list[Path]] = defaultdict(list)
        for file in files:
            for ending in _endings(file.relative_to(root)):
                self.by_ending[ending].append(file)

    def find(self, image: Path) -> Path | str:
        """The text with the longest common end of the path, or the reason why there is none."""
        for ending in reversed(_endings(image)):
            if found := self.by_ending.get(ending):
                if len(found) == 1:
                    return found[0]
                return f"no caption of its own: {len(found)} text files of the same name fit equally well"
        return "no caption: there is no text file of the same name"


def _endings(path: Path) -> list[str]:
    """1, b/1, a/b/1 of a/b/1.png."""
    parts = path.with_suffix("").parts
    return ["/".join(parts[i:]) for i in reversed(range(len(parts)))]


def _captions(text: Path) -> tuple[str, ...]:
    try:
        return texts.clean(texts.decoded(read_regular(text, texts.LARGEST)))
    except DataError as error:
        reason = str(error)
        raise DataError(reason if reason.startswith("the caption") else f"the caption's file: {reason}") from error


def _add(pairs: list[Pair], skipped: list[Skip], key: str, image: Path, read: Callable[[], Iterable[str]]) -> None:
    try:
        captions = tuple(read())
    except DataError as error:
        skipped.append(Skip(key, str(error)))
        return
    if captions:
        pairs.append(Pair(key, image, captions))
    else:
        skipped.append(Skip(key, "the caption is empty"))


def _listed(layout: str, root: Path, files: list[Path], rows: list[Row], skipped: list[Skip]) -> Folder:
    """Pictures named in a table. Several rows of one picture are its captions. A name never leads out of the folder."""
    captions: dict[str, list[str]] = defaultdict(list)
    places: dict[str, Path] = {}
    refused = set()
    for row in rows:
        key, place = _find(root, row)
        if row.reason:
            skipped.append(Skip(key, row.reason))
            refused.add(key)
        else:
            captions[key] += row.captions
        places[key] = place
    pairs: list[Pair] = []
    top = os.path.realpath(root)
    for key in sorted(captions):
        real = os.path.realpath(places[key])
        if os.path.commonpath([top, real]) != top:
            skipped.append(Skip(key, "the name leads out of the data folder"))
        elif not os.path.isfile(real):
            skipped.append(Skip(key, "listed, but the file is not there"))
        elif captions[key] or key not in refused:
            _add(pairs, skipped, key, places[key], lambda key=key: captions[key])
    named = {os.path.realpath(p) for p in places.values()}
    for file in files:
        if file.suffix.lower() in SUFFIXES and os.path.realpath(file) not in named:
            skipped.append(Skip(file.relative_to(root).as_posix(), f"no caption: {layout} does not list it"))
    return Folder(layout, tuple(pairs), tuple(skipped + _unused(root, files)))


USUAL = ("", "images", "train")
"""Folders below the data folder in which a listed picture may lie; its key is the name as listed."""


def _find(root: Path, row: Row) -> tuple[str, Path]:
    """The key of a row's picture and its path. A row of a part (train2017) has the part in its key."""
    for folder in row.folders:
        if os.path.exists(root / folder / row.name):
            return f"{folder}/{row.name}", root / folder / row.name
    places = (root / folder / row.name for folder in USUAL)
    return row.name, next((p for p in places if os.path.exists(p)), root / row.name)


def _unused(root: Path, files: list[Path]) -> list[Skip]:
    """Pictures of formats that are not read."""
    by_suffix: dict[str, list[str]] = defaultdict(list)
    for file in files:
        if file.suffix.lower() in OTHERS:
            by_suffix[file.suffix.lower()].append(file.relative_to(root).as_posix())
    return [s for kind in by_suffix for s in _named(f"{kind} is not read; save it as PNG or JPEG", by_suffix[kind])]


def _named(reason: str, paths: list[str]) -> list[Skip]:
    """A few files by name; many by the first name and their number."""
    if len(paths) <= SINGLY:
        return [Skip(path, reason) for path in paths]
    return [Skip(paths[0], f"{reason}; and {len(paths) - 1:,} more like it")]


def _below(file: Path, *roots: Path) -> str:
    return next((file.relative_to(r).as_posix() for r in roots if file.is_relative_to(r)), str(file))
