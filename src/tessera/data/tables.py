"""Tables of pictures and captions: CSV, JSON lines, Parquet and COCO. It opens no picture.

A problem of one row becomes the reason in that Row. A problem of the whole table is a DataError that names the file.
"""

from __future__ import annotations

import csv
import json
import mmap
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tessera.data.captions import COLUMNS, MARKS, clean, decoded
from tessera.data.pictures import SUFFIXES
from tessera.errors import ConfigError, DataError, install
from tessera.files.regular import open_regular, read_regular


@dataclass(frozen=True)
class Row:
    """A picture's name and captions. A `reason` says why the row cannot be used."""

    name: str
    captions: tuple[str, ...] = ()
    reason: str = ""
    folders: tuple[str, ...] = ()
    """Folders to look in besides the usual ones."""


LINES = 100
"""Most lines of one CSV row; more mean that a quote is not closed."""
DELIMITERS = ",;\t|"
HEADER = "file_name,text"
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$")
LONGEST_NAME = 1024


def read_csv(path: Path) -> list[Row]:
    """Rows with file_name and a caption's column, separated by commas, semicolons, tabs or bars."""
    lines = LINE.findall(_text(path))
    start = next((i for i, line in enumerate(lines) if line.strip()), 0)
    headers = {d: _cells(lines[start : start + 1], d) for d in DELIMITERS}
    named = (d for d, header in headers.items() if "file_name" in map(_plain, header))
    delimiter = next(named, max(headers, key=lambda d: len(headers[d])))
    header = headers[delimiter]
    name, columns = _columns(path, header)
    rows = []
    for number, cells in _csv_rows(lines, start + 1, delimiter):
        where = f"{path.name}, line {number + 1}"
        if isinstance(cells, str):
            rows.append(Row(where, reason=cells))
        elif any(map(str.strip, cells[len(header) :])):
            reason = (
                f"{len(cells)} cells, where the header names {len(header)}; put a caption with {delimiter!r} in quotes"
            )
            rows.append(Row(where, reason=reason))
        elif any(map(str.strip, cells)):
            row = dict(zip(header, cells, strict=False))
            rows.append(_row(where, row.get(name), [row[c] for c in columns if c in row]))
    return rows


def _cells(lines: list[str], delimiter: str) -> list[str]:
    try:
        return next(csv.reader(lines, delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:  # a line of more than 131,072 letters
        return []


def _csv_rows(lines: Sequence[str], start: int, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """(line, cells) of each row. If its quotes are damaged, the reason; then the next line begins a new row."""
    while start < len(lines):
        ahead = (lines[i] for i in range(start, min(start + LINES, len(lines))))
        reader = csv.reader(ahead, delimiter=delimiter, skipinitialspace=True)
        try:
            cells: list[str] | str = next(reader, [])
            taken = reader.line_num
            if taken > 1 and not _closed(lines[start : start + taken], delimiter):
                cells, taken = "a quote opens here and is not closed before the next row", 1
        except csv.Error as error:
            cells, taken = f"not a row of CSV: {error}", 1
        yield start, cells
        start += taken


def _closed(lines: Sequence[str], delimiter: str) -> bool:
    """Whether a row of several lines is meant: its quotes are closed, and no later line looks like a row of its own."""
    try:
        list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error:
        return False
    begins = (line.partition(delimiter) for line in lines[1:])
    return not any(mark and os.path.splitext(first.strip(' "'))[1].lower() in SUFFIXES for first, mark, _ in begins)


def read_jsonl(path: Path) -> list[Row]:
    """One JSON object a line."""
    rows = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            rows.append(Row(where, reason=f"it is not a JSON object: {str(error)[:100] or type(error).__name__}"))
            continue
        if isinstance(row, dict):
            named = {_plain(k): v for k, v in row.items()}
            rows.append(_row(where, named.get("file_name"), [named[c] for c in COLUMNS if c in named]))
        else:
            rows.append(Row(where, reason="it is not a JSON object"))
    return rows


def read_parquet(path: Path) -> list[Row]:
    """The columns file_name and the captions; no other column is read."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigError(f"Reading {path} needs pyarrow: {install('parquet')}.") from error
    try:
        with parquet.ParquetFile(path) as file:
            name, columns = _columns(path, file.schema_arrow.names)
            table = file.read(columns=[name, *columns])
            found = [table.column(c).combine_chunks() for c in (name, *columns)]
    except DataError:
        raise
    except Exception as error:  # the library's errors are of many kinds
        raise DataError(
            f"{path} is not a whole Parquet file: {str(error)[:200].rstrip('.') or type(error).__name__}."
        ) from error
    rows = []
    for i in range(len(found[0])):
        where = f"{path.name}, row {i}"
        try:
            first, *values = [column[i].as_py() for column in found]
        except (ValueError, OverflowError) as error:
            rows.append(Row(where, reason=f"it cannot be read: {str(error)[:100]}"))
            continue
        rows.append(_row(where, first, values))
    return rows


READERS: dict[str, Callable[[Path], list[Row]]] = {
    "metadata.csv": read_csv,
    "metadata.jsonl": read_jsonl,
    "metadata.parquet": read_parquet,
}
"""The tables that are looked for, in this order."""


def _text(path: Path) -> str:
    try:
        return decoded(read_regular(path))
    except DataError as error:
        raise DataError(f"{path}: {error}.") from error


def _plain(column: object) -> str:
    """A column's name without differences of case, spaces and hyphens."""
    return re.sub(r"[ -]+", "_", str(column).strip().lower())


def _columns(path: Path, header: Sequence[str]) -> tuple[str, list[str]]:
    """The names of the columns of file names and of captions. Raises DataError that says which names to use."""
    name = next((h for h in header if _plain(h) == "file_name"), None)
    columns = [h for wanted in COLUMNS for h in header if _plain(h) == wanted]
    if name is None or not columns:
        missing = "file_name" if name is None else f"for captions ({', '.join(COLUMNS)})"
        found = ", ".join(repr(str(h)[:40]) for h in header[:12]) or "nothing"
        raise DataError(f"{path} has no column {missing}; found {found}. Its columns must be named {HEADER}.")
    return name, columns


def _row(where: str, name: object, values: Iterable[object]) -> Row:
    """One row; its caption is the first of `values` (in the order of COLUMNS) that is not empty."""
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str) or not name.strip():
        return Row(where, reason="it has no file_name")
    if len(name) > LONGEST_NAME:
        return Row(where, reason=f"its file_name has {len(name):,} letters")
    if "\0" in name:
        return Row(where, reason="its file_name holds the character NUL")
    try:
        key = posixpath.normpath(name)
        os.fsencode(key)
    except UnicodeEncodeError:
        return Row(where, reason="its file_name holds half a character (a lone surrogate)")
    value = next((v for v in values if v not in (None, "", b"", [])), None)
    try:
        return Row(key, clean("" if value is None else value))
    except DataError as error:
        return Row(key, reason=str(error))


# COCO.

WORDS = ('"images"', '"annotations"', '"caption"')


def may_be_coco(path: Path) -> bool:
    """Whether a JSON file holds the words of COCO captions. It is searched, not parsed: files of boxes are huge."""
    try:
        with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            marked = next((name for mark, name in MARKS if content[: len(mark)] == mark), "")
            encodings = (f"{marked}-le", f"{marked}-be") if marked else ("utf-8",)
            return any(all(content.find(word.encode(e)) >= 0 for word in WORDS) for e in encodings)
    except (DataError, OSError, ValueError):  # an empty file cannot be mapped
        return False


def read_coco(path: Path) -> list[Row]:
    """Captions by picture. `captions_train2017.json` also looks in train2017. Raises DataError if it is not COCO."""
    try:
        tables = json.loads(decoded(read_regular(path)))
        if not isinstance(tables, dict):
            raise DataError("it does not hold an object with images and annotations")
        images, notes = tables["images"], tables["annotations"]
        if not isinstance(images, list) or not isinstance(notes, list):
            raise DataError("images and annotations must be lists")
    except (KeyError, TypeError, ValueError, RecursionError, DataError) as error:
        reason = "there is no " + str(error) if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise DataError(f"{path} is not a COCO captions file: {reason[:200]}.") from error
    part = path.stem.removeprefix("captions_")
    folders = (part, f"images/{part}") if part != path.stem and part not in ("", ".", "..") else ()
    names, rows = _coco_images(path, images)
    captioned: set[str] = set()
    strangers = 0
    for number, note in enumerate(notes):
        name = names.get(_id(note.get("image_id"))) if isinstance(note, dict) else None
        if name is None or "caption" not in note:
            strangers += 1
            continue
        captioned.add(name)
        row = _row(f"{path.name}, annotation {number}", name, [note["caption"]])
        rows.append(Row(row.name, row.captions, row.reason, folders))
    rows += [Row(n, (), "", folders) for n in names.values() if n is not None and n not in captioned]
    if strangers:
        reason = f"{strangers:,} annotations without a caption, or of pictures that it does not list"
        rows.append(Row(path.name, reason=reason))
    return rows


def _coco_images(path: Path, images: list[object]) -> tuple[dict[int | str | None, str | None], list[Row]]:
    """Names by id, and the problems of entries. An id of two pictures is used for neither."""
    names: dict[int | str | None, str | None] = {}
    rows = []
    for number, image in enumerate(images):
        where = f"{path.name}, image {number}"
        entry = image if isinstance(image, dict) else {}
        key = _id(entry.get("id"))
        row = _row(where, entry.get("file_name"), [])
        if key is None or row.reason:
            rows.append(Row(where, reason=row.reason if key is not None else "it has no id"))
        elif names.setdefault(key, row.name) != row.name:
            names[key] = None
            rows.append(Row(row.name, reason=f"the id {str(key)[:40]} is given to another picture, too"))
        else:
            continue
    return names, rows


def _id(value: object) -> int | str | None:
    return value if isinstance(value, int | str) else None
