"""Webdataset shards (tar files of pictures and captions), read in place by an index of their members.

Remote shards are downloaded once into a cache. After that every member can be read at random, so order, resuming and
the division among ranks and workers are exact, as they are for folders.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import shutil
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path

from tessera.config.merging import read_json
from tessera.data import captions as texts
from tessera.data.pictures import SUFFIXES, Member
from tessera.data.share import ALL, told
from tessera.data.sources import Folder, Pair, Skip
from tessera.errors import CheckpointError, ConfigError, DataError
from tessera.files.atomic import whole
from tessera.files.download import CACHE, PIPE, cached, fetch, scheme_of, stamp, starts_programs
from tessera.files.own import kind_of

SHARD = re.compile(r".*\.(tar|tgz|tar\.gz)")
"""The name of a shard."""
MOST = 1_000_000
"""Largest number of shards that braces may stand for."""
COLUMNS = ("txt", "text", "caption", "json.caption", "json.text", "json.prompt", "json.captions", "json.description")
"""Columns in which captions are looked for, in this order."""


def are_shards(path: str) -> bool:
    """Whether a data path names shards: a tar, a brace range, an address, a command, or a folder that holds more tars
    than loose pictures."""
    if starts_programs(path) or scheme_of(path):
        return True
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return bool(SHARD.fullmatch(path))
    tars = sum(1 for name in _names(folder) if SHARD.fullmatch(name))
    if not tars or (folder / "metadata.csv").exists():
        return False
    walk = (name for _, _, names in os.walk(folder) for name in names)
    loose = (name for name in walk if Path(name).suffix.lower() in SUFFIXES)
    return sum(1 for _ in islice(loose, tars)) < tars


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read: {error.strerror}.") from error


def scan(path: str, caption_column: str = "") -> Folder:
    """Find the pairs in all shards. Unusable shards and members are left out and named.

    `caption_column` is an extension (txt) or a field of a JSON member (json.caption). Raises DataError if no
    pair is left.
    """
    pairs: list[Pair] = []
    skipped: list[Skip] = []
    if not starts_programs(path) and (why := unfinished(Path(path).expanduser())):
        raise DataError(
            f"{path} is not completely packed: {why}. Run the same command again, for these ranks alone if you like."
        )
    sources = expand(path)
    for source, name in zip(sources, names_of(sources), strict=True):
        try:
            shard = local(source)
        except (CheckpointError, OSError) as error:
            skipped.append(Skip(name, f"the shard cannot be fetched: {str(error).rstrip('.')}"))
            continue
        members, reason = index(shard)
        if reason:
            skipped.append(Skip(name, reason))
        _pair_up(name, shard, members, caption_column, pairs, skipped)
    if not pairs:
        first = "".join(f" {s.path}: {s.reason}." for s in skipped[:1])
        raise DataError(f"{path} holds no captioned picture ({len(skipped)} left out).{first}")
    return Folder("webdataset", tuple(pairs), tuple(skipped))


def unfinished(folder: Path) -> str:
    """Why shards that were packed here are not all there, for a sentence; empty where they are, or came from others."""
    if kind_of(folder) != "shards":
        return ""
    try:
        count = read_json(folder / "pack.json", dict[str, object]).get("shards")
    except ConfigError:
        return ""
    if not isinstance(count, int) or not 0 < count <= MOST:
        return ""
    there = set(_names(folder))
    missing = [i for i in range(count) if f"shard-{i:06d}.tar" not in there]
    return told(missing, count, "shards", ALL) if missing else ""


def names_of(sources: Sequence[str]) -> list[str]:
    """The beginning of each shard's keys: its file name, and where several are equal, as many of the folders above as
    distinguish them. It is the same on every machine."""
    parts = [[s] if s.startswith(PIPE) else s.rstrip("/").split("/") for s in sources]
    names = [p[-1] for p in parts]
    for length in range(2, max(map(len, parts), default=0) + 1):
        twice = {name for name, count in Counter(names).items() if count > 1}
        names = ["/".join(p[-length:]) if n in twice else n for n, p in zip(names, parts, strict=True)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"The shard {twice[0]} is named twice; name each once.")
    return names


def expand(path: str) -> list[str]:
    """Every shard, in order: brace ranges {00..17} and lists {a,b} are expanded, folders are searched for tars."""
    if not path.startswith(PIPE):
        folder = Path(path).expanduser()
        if folder.is_dir():
            found = [str(p) for p in sorted(folder.rglob("*")) if SHARD.fullmatch(p.name) and p.is_file()]
            return [f"./{name}" if starts_programs(name) else name for name in found]  # a file may be called pipe:x.tar
    choices: list[Sequence[str]] = []
    for inside, text in re.findall(r"\{([^{}]*)\}|([^{}]+|[{}])", path):
        if ".." in inside:
            choices.append(_range(inside, path))
        else:
            choices.append(inside.split(",") if "," in inside else [text or f"{{{inside}}}"])
    if math.prod(map(len, choices)) > MOST:
        raise ConfigError(f"{path} stands for more than {MOST:,} shards.")
    sources = ["".join(parts) for parts in product(*choices)]
    if not starts_programs(path) and (hidden := next(filter(starts_programs, sources), "")):
        raise ConfigError(f"{path} stands for '{hidden[:200]}', which starts programs; write that part without braces.")
    return sources


def _range(inside: str, path: str) -> list[str]:
    first, last = inside.split("..", 1)
    if not (first.isdecimal() and last.isdecimal() and len(first + last) <= 30):
        raise ConfigError(f"The range {{{inside}}} in {path} is not one of numbers; write for example {{00..17}}.")
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    numbers = range(int(first), int(last) + 1)
    if len(numbers) > MOST:
        raise ConfigError(f"{path} stands for more than {MOST:,} shards.")
    return [str(i).zfill(width) for i in numbers]


def local(source: str) -> Path:
    """The shard as a plain tar on this disk."""
    kept = CACHE / "shards"
    return _unzipped(fetch(source, kept), kept)


def _unzipped(path: Path, kept: Path) -> Path:
    """A gzipped shard, unpacked once for each version of the file."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path
    plain = cached(path.name, kept, stamp(path))
    plain = plain.with_name(f"{plain.name}.plain")
    if not plain.is_file():
        plain.parent.mkdir(parents=True, exist_ok=True)
        try:
            with gzip.open(path) as source, whole(plain) as fresh, fresh.open("wb") as target:
                shutil.copyfileobj(source, target)
        except (EOFError, zlib.error) as error:
            raise CheckpointError(f"it cannot be unpacked: {error}") from error
    return plain


def index(shard: Path) -> tuple[dict[str, Member], str]:
    """Where each member lies, and what is wrong with the shard. Members before a damaged place are kept."""
    found: dict[str, Member] = {}
    size = shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as tar:
            while member := tar.next():
                if member.offset_data + member.size > size:
                    return found, f"cut off in the middle of {member.name}"
                if member.isfile():
                    found[member.name] = Member(shard, member.offset_data, member.size)
        with shard.open("rb") as file:
            file.seek(max(0, size - 512))
            ended = not file.read(512).strip(b"\0")
        return found, "" if ended else "cut off: it has no end"
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, MemoryError) as error:  # sizes beyond all
        return found, f"damaged after {len(found)} members: {str(error) or type(error).__name__}"


def _pair_up(
    name: str, shard: Path, members: dict[str, Member], column: str, pairs: list[Pair], skipped: list[Skip]
) -> None:
    """Members whose names are equal up to the first dot are one sample."""
    samples: dict[str, dict[str, Member]] = defaultdict(dict)
    for path, member in members.items():
        folder, _, file = path.rpartition("/")
        stem, _, extension = file.partition(".")
        if stem:
            samples[f"{folder}/{stem}" if folder else stem][extension.lower()] = member
    for stem, columns in samples.items():
        key = f"{name}/{stem}"
        image = next((m for extension, m in columns.items() if f".{extension}" in SUFFIXES), None)
        if image is None:
            skipped.append(Skip(key, f"no picture: it holds {', '.join(columns)}"))
            continue
        try:
            captions = _captions(columns, column)
        except (ValueError, RecursionError, DataError) as error:
            skipped.append(Skip(key, f"no caption: {error}"))
            continue
        pairs.append(Pair(key, image, captions))


def _captions(columns: dict[str, Member], asked: str) -> tuple[str, ...]:
    for column in (asked,) if asked else COLUMNS:
        extension, _, fieldname = column.partition(".")
        if extension not in columns:
            continue
        value: object = texts.decoded(columns[extension].read_bytes())
        if fieldname:
            content = json.loads(value)
            value = content.get(fieldname, ()) if isinstance(content, dict) else ()
        if captions := texts.clean(value):
            return captions
    raise DataError(f"none of {asked or ', '.join(COLUMNS)} in {', '.join(columns)}")
