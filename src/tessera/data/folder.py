"""Captioned folders in every usual layout, as a sorted list of pairs. It opens no picture."""

from __future__ import annotations

import csv
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera.data.pictures import SUFFIXES, Member
from tessera.errors import ConfigError, DataError


@dataclass(frozen=True)
class Pair:
    """A picture and its captions. `key` is its path below the data folder, the same on every machine."""

    key: str
    image: Path | Member
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Skip:
    """Something left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Folder:
    """What a data folder holds: pairs and skips, both sorted, and which layout it has."""

    layout: str
    pairs: tuple[Pair, ...]
    skipped: tuple[Skip, ...]


METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def scan(path: str, captions: str = "") -> Folder:
    """Find the pairs below `path`; `captions` is a second tree of texts or a COCO JSON file where they are apart.

    Raises ConfigError where the folder is not there, DataError where it holds no pair at all.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise ConfigError(f"The data folder {path} {what}. Name the folder with your captioned pictures.")
    second = Path(captions).expanduser() if captions else None
    if second and not second.exists():
        raise ConfigError(f"data.captions {captions} does not exist.")
    folder = _read_layout(root, second)
    if not folder.pairs:
        first = "".join(f" {s.path}: {s.reason}." for s in folder.skipped[:1])
        raise DataError(
            f"{path} holds no captioned picture ({len(folder.skipped)} left out).{first} A picture needs a text file "
            "of the same name, a metadata.csv, .jsonl or .parquet with file_name and text, or a COCO captions JSON."
        )
    return folder


def _read_layout(root: Path, second: Path | None) -> Folder:
    if second and second.is_file():
        return _listed("coco", root, _coco(second))
    files = sorted(_walk(root))
    for name in METADATA:
        if Path(root, name) in files:
            return _listed(name, root, METADATA_READERS[Path(name).suffix](root / name))
    coco = [f for f in files if f.suffix == ".json" and f.parent in (root, root / "annotations") and _is_coco(f)]
    if coco:
        return _listed("coco", root, [row for f in coco for row in _coco(f)])
    texts = sorted(_walk(second)) if second else files
    return _matched(root, second or root, files, texts)


def _walk(root: Path) -> Iterator[Path]:
    """All files and links to files, no folder twice: a link to a folder is followed unless it leads back up."""
    seen: set[str] = set()

    def below(folder: Path) -> Iterator[Path]:
        real = os.path.realpath(folder)
        if real in seen:
            return
        seen.add(real)
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: os.fsencode(e.name)):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from below(Path(entry.path))
                else:
                    yield Path(entry.path)

    return below(root)


def _matched(root: Path, text_root: Path, files: list[Path], texts: list[Path]) -> Folder:
    """Text files beside their pictures or in a tree of their own, matched by as much of the path as agrees."""
    images = [f for f in files if f.suffix.lower() in SUFFIXES]
    texts = [f for f in texts if f.suffix.lower() == ".txt"]
    beside = {(f.parent, f.stem): f for f in [*texts, *files] if f.suffix.lower() == ".txt"}
    taken = {beside[key] for i in images if (key := (i.parent, i.stem)) in beside}
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for text in texts:
        if text not in taken:
            by_stem[text.stem].append(text)
    pairs, skipped, apart = [], [], False
    for image in images:
        key = image.relative_to(root).as_posix()
        text = beside.get((image.parent, image.stem)) or _farther(
            image.relative_to(root), text_root, by_stem[image.stem]
        )
        if isinstance(text, str):
            skipped.append(Skip(key, text))
            continue
        apart |= text.parent != image.parent
        _add(pairs, skipped, key, image, lambda text=text: _lines(text))
    return Folder("two trees" if apart else "same-name text", tuple(pairs), tuple(skipped))


def _farther(image: Path, root: Path, candidates: list[Path]) -> Path | str:
    """The text whose path agrees with the image's over the most folders from the end; else the reason there is none."""
    if not candidates:
        return "no caption: there is no text file of the same name"
    wanted = image.with_suffix("").parts[::-1]

    def agreement(text: Path) -> int:
        parts = text.relative_to(root).with_suffix("").parts[::-1]
        return next(
            (i for i, (a, b) in enumerate(zip(wanted, parts, strict=False)) if a != b), min(len(wanted), len(parts))
        )

    ranked = sorted(candidates, key=agreement, reverse=True)
    if len(ranked) > 1 and agreement(ranked[0]) == agreement(ranked[1]):
        return f"no caption of its own: {len(ranked)} text files of the same name fit equally well"
    return ranked[0]


def _lines(text: Path) -> list[str]:
    if not text.is_file():
        raise DataError("the caption is not a regular file")
    raw = text.read_bytes()
    try:
        decoded = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        decoded = raw.decode("latin-1")  # the only encoding old caption files were found in besides UTF-8
    return decoded.splitlines()


def _add(pairs: list[Pair], skipped: list[Skip], key: str, image: Path, read: Callable[[], list[str]]) -> None:
    try:
        captions = tuple(c for line in read() if (c := " ".join(line.replace("\0", " ").split())))
    except (DataError, OSError) as error:
        skipped.append(Skip(key, str(error)))
        return
    if captions:
        pairs.append(Pair(key, image, captions))
    else:
        skipped.append(Skip(key, "the caption is empty"))


Row = tuple[str, list[str]]


def _listed(layout: str, root: Path, rows: list[Row]) -> Folder:
    """Pictures named in a table. Several rows of one picture are its captions; a name never leads out of the folder."""
    captions: dict[str, list[str]] = defaultdict(list)
    for name, lines in rows:
        captions[name].extend(lines)
    pairs: list[Pair] = []
    skipped: list[Skip] = []
    places = {}
    for name in sorted(captions):
        places[name] = next(
            (p for p in (root / name, *(root / sub / name for sub in ("images", "train"))) if p.exists()), root / name
        )
        if not places[name].resolve().is_relative_to(root.resolve()):
            skipped.append(Skip(name, "the name leads out of the data folder"))
        elif not places[name].is_file():
            skipped.append(Skip(name, "listed, but the file is not there"))
        else:
            _add(pairs, skipped, name, places[name], lambda name=name: captions[name])
    named = {p.resolve() for p in places.values()}
    for file in sorted(_walk(root)):
        if file.suffix.lower() in SUFFIXES and file.resolve() not in named:
            skipped.append(Skip(file.relative_to(root).as_posix(), f"no caption: {layout} does not list it"))
    return Folder(layout, tuple(pairs), tuple(skipped))


def _row(row: dict[str, Any], source: Path) -> Row:
    name = row.get("file_name")
    column = next((c for c in ("text", "caption", "captions", "prompt", "description") if row.get(c)), None)
    if not isinstance(name, str) or not name:
        raise DataError(f"{source} has no column file_name; found {', '.join(map(str, row))}.")
    value = row[column] if column else []
    return name, [str(v) for v in value] if isinstance(value, list | tuple) else str(value).splitlines()


def _csv(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return [_row(row, path) for row in csv.DictReader(file)]


def _jsonl(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(path.read_text("utf-8-sig", errors="replace").splitlines(), 1):
        if line.strip():
            try:
                rows.append(_row(json.loads(line), path))
            except (json.JSONDecodeError, AttributeError) as error:
                raise DataError(f"{path}, line {number} is no JSON object: {error}") from error
    return rows


def _parquet(path: Path) -> list[Row]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigError(f"Reading {path} needs pyarrow: pip install 'tessera[parquet]'.") from error
    return [_row(row, path) for row in parquet.read_table(path).to_pylist()]


METADATA_READERS: dict[str, Callable[[Path], list[Row]]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def _is_coco(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(1 << 20)
    return b'"annotations"' in head or b'"images"' in head


def _coco(path: Path) -> list[Row]:
    try:
        tables = json.loads(path.read_text("utf-8"))
        names = {image["id"]: image["file_name"] for image in tables["images"]}
        found = [(names[a["image_id"]], [a["caption"]]) for a in tables["annotations"] if a["image_id"] in names]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no COCO captions file: {type(error).__name__} {error}.") from error
    captioned = {name for name, _ in found}
    return found + [(name, []) for name in names.values() if name not in captioned]
