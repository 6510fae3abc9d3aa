"""Pictures encoded once: a folder of packed codes, with several crops and flips of each. It knows no text model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import UInt8
from torch import Tensor

from tessera.config import DataConfig
from tessera.config.merging import read_json
from tessera.data.pictures import middle_square, place, random_square, read, resized
from tessera.data.share import ALL, Share, told
from tessera.data.sources import Pair
from tessera.errors import ConfigError, DataError
from tessera.files import own, sums
from tessera.files.atomic import whole, write_whole
from tessera.files.claim import claim
from tessera.tokens.image import ImageTokenizer

ROWS = 64
"""Crops that are encoded together."""
PART = 256
"""Pairs per file; an interruption loses at most this many."""
MOST_PARTS = 100_000_000
"""A damaged note of how many parts there are must not make a machine hang."""

TYPES = (np.dtype(np.uint16), np.dtype(np.uint32))
"""What packed codes are: the first that holds all of them."""
KIND = "codes"


def packed_type(vocab: int) -> np.dtype:
    """The type of packed codes 0 ... vocab - 1."""
    return next(kind for kind in TYPES if vocab - 1 <= np.iinfo(kind).max)


@dataclass(frozen=True)
class Listed:
    """A pair in index.json."""

    key: str
    image: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Index:
    """The content of index.json: the settings of the encoding, the parts and the pairs."""

    tokenizer: str
    views: Annotated[int, Ge(1)]
    seed: int
    data: dict[str, object]
    keys: str
    parts: tuple[str, ...]
    pairs: tuple[Listed, ...]
    part: Annotated[int, Ge(1)] = PART
    """Pairs per file."""


class Codes:
    """Packed codes, memory-mapped. View 0 of a pair is its middle square; the others are random crops and flips."""

    def __init__(self, folder: Path):
        """Raises DataError if the folder holds no finished codes, or damaged ones."""
        try:
            self.index: Index = read_json(folder / "index.json", Index)
            if wrong := [name for name in self.index.parts if not re.fullmatch(r"part-\d{5,}\.npy", name)]:
                raise ValueError(f"'{wrong[0][:60]}' is not the name of a part")
            self.parts = [_mapped(folder / name) for name in self.index.parts]
            self._compare()
        except (ValueError, ConfigError) as error:
            raise DataError(f"{folder} holds no finished packed codes ({_why(folder, error)}).") from error
        self.pairs = [Pair(p.key, place(p.image), p.captions) for p in self.index.pairs]
        self.rows = np.arange(len(self.pairs))

    def _compare(self) -> None:
        """Raises ValueError if the parts do not agree with the index."""
        count, views = len(self.index.pairs), self.index.views
        if len({p.key for p in self.index.pairs}) < count:
            raise ValueError("two pairs have the same key")
        for number, part in enumerate(self.parts):
            rows = min(self.index.part, count - number * self.index.part)
            if part.dtype not in TYPES or part.ndim != 3 or part.shape[:2] != (rows, views):
                known = " or ".join(map(str, TYPES))
                raise ValueError(f"part {number} holds {part.dtype} {part.shape}, not {known} ({rows}, {views}, N)")
            if (part.dtype, part.shape[2]) != (self.parts[0].dtype, self.parts[0].shape[2]):
                raise ValueError("its parts hold different numbers of codes, or numbers of another type")
        if len(self.parts) != -(-count // self.index.part) or not self.parts:
            raise ValueError(f"{len(self.parts)} parts are not those of {count} pairs")

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, pairs: Sequence[Pair]) -> Codes:
        """The same codes, restricted to these pairs and in their order."""
        row_of = {pair.key: i for i, pair in enumerate(self.pairs)}
        part = object.__new__(Codes)
        part.index, part.parts = self.index, self.parts
        part.rows = np.array([row_of[pair.key] for pair in pairs], dtype=np.int64)
        part.pairs = self.pairs
        return part

    def some(self, index: np.ndarray, chance: np.ndarray) -> np.ndarray:
        """One encoding of each of these pairs, uint16 or uint32 [B, N]."""
        rows = self.rows[index]
        parts, places = np.divmod(rows, self.index.part)
        views = (chance % np.uint64(self.parts[0].shape[1])).astype(np.int64)
        found = np.empty((len(rows), self.parts[0].shape[2]), dtype=self.parts[0].dtype)
        for part in np.unique(parts):
            here = parts == part
            found[here] = self.parts[part][places[here], views[here]]
        return found

    def views(self, index: int) -> Tensor:
        """All encodings of a pair: int64 [V, N]."""
        part, place = divmod(self.rows[index], self.index.part)
        return torch.from_numpy(self.parts[part][place].astype(np.int64))


def _mapped(part: Path) -> np.ndarray:
    """The array in a file, memory-mapped. Raises ValueError if there is none."""
    if not part.is_file():
        raise ValueError(f"{part.name} is not there, or is not a regular file")
    try:
        return np.load(part, mmap_mode="r")
    except Exception as error:  # a damaged header makes numpy raise nearly every kind there is
        raise ValueError(f"{part.name}: {error}") from error


def encode(
    pairs: Sequence[Pair],
    tokenizer: ImageTokenizer,
    folder: Path,
    views: int,
    config: DataConfig,
    seed: int,
    progress: Callable[[Iterable, int], Iterable] = lambda items, total: items,
    mine: Share = ALL,
    per_part: int = PART,
    verify: bool = False,
) -> Sequence[int]:
    """Write `views` encodings of each pair: one process's share of the parts, and the index once all parts are there.
    Returns the numbers of the parts that other processes have yet to write; parts do not depend on how many processes
    there are. `verify` checks existing parts against their checksums and encodes damaged ones again.

    The same call resumes. Other settings start again from the beginning, or raise ConfigError where several processes
    share the folder.
    """
    begin(folder)
    about = _about(pairs, tokenizer, views, config, seed, per_part)
    own.sweep(folder)
    _start(folder, about, mine)
    names = [f"part-{i:05d}.npy" for i in range(-(-len(pairs) // per_part))]
    write_whole(folder / "parts.json", json.dumps({"parts": len(names), "ranks": max(mine.ranks, _shared(folder))}))
    numbers = mine.of(range(len(names)))
    for number in progress(numbers, len(numbers)):
        path, first = folder / names[number], number * per_part
        if sums.agrees(path) if verify else path.is_file():
            continue
        numbered = list(enumerate(pairs[first : first + per_part], first))
        with whole(path) as fresh:
            with fresh.open("wb") as file:
                np.save(file, _encode_part(numbered, tokenizer, views, config, seed))
            sums.write(path, fresh)
    missing = _missing(folder, len(names))
    if not missing:
        listed = [{"key": p.key, "image": str(p.image), "captions": p.captions} for p in pairs]
        write_whole(folder / "index.json", json.dumps({**about, "parts": names, "pairs": listed}))
    return missing


def _about(
    pairs: Sequence[Pair], tokenizer: ImageTokenizer, views: int, config: DataConfig, seed: int, per_part: int
) -> dict[str, object]:
    """Everything that the codes depend on. Parts of the usual size are not mentioned, as they never were."""
    keys = hashlib.blake2b("\n".join(p.key for p in pairs).encode("utf-8", "surrogateescape")).hexdigest()
    about: dict[str, object] = {
        "tokenizer": tokenizer.fingerprint(), "views": views, "seed": seed, "data": asdict(config), "keys": keys,
    }  # fmt: skip
    return {**about, "part": per_part} if per_part != PART else about


def _start(folder: Path, about: dict[str, object], mine: Share) -> None:
    """Write down what is encoded; what other settings left is removed, unless several processes work here."""
    started = folder / "started.json"
    found = _read_plainly(started)
    if found == json.loads(json.dumps(about)):
        return
    if found is not None and max(mine.ranks, _shared(folder)) > 1:
        wrong = [name for name in about if not isinstance(found, dict) or found.get(name) != about[name]]
        raise ConfigError(
            f"{folder} holds codes of other settings, pictures or of another tokenizer ({', '.join(wrong) or 'part'}): "
            "all processes must be given the same, and one that is started again alone, too. Name a new folder."
        )
    for old in folder.iterdir() if mine.ranks == 1 else ():
        if ours(old.name) and old.name != own.MARKER:
            own.remove(old)
    write_whole(started, json.dumps(about))


def _shared(folder: Path) -> int:
    """How many processes have shared this folder's work, at most."""
    plan = _read_plainly(folder / "parts.json")
    ranks = plan.get("ranks") if isinstance(plan, dict) else None
    return ranks if isinstance(ranks, int) else 1


def _missing(folder: Path, count: int) -> Sequence[int]:
    there = {p.name for p in folder.iterdir()}
    return [i for i in range(count) if f"part-{i:05d}.npy" not in there]


def _why(folder: Path, error: Exception) -> str:
    """Why the codes cannot be read, parts that are still missing or damage, and what to do about it."""
    plan = _read_plainly(folder / "parts.json")
    count = plan.get("parts") if isinstance(plan, dict) else None
    if isinstance(count, int) and 0 < count < MOST_PARTS and (missing := _missing(folder, count)):
        return f"{told(missing, count, 'parts', ALL)}; run the same command again, for these ranks alone if you like"
    return f"{error}. Encode the pictures again"


def damaged(folder: Path) -> list[str]:
    """The parts that do not hold what was written."""
    return [name for name in Codes(folder).index.parts if not sums.agrees(folder / name)]


def begin(folder: Path) -> None:
    """Claim the folder for codes, before any work. Raises ConfigError if it holds anything else."""
    claim(folder, KIND, lambda old: all(ours(p.name) for p in old.iterdir()))


def ours(name: str) -> bool:
    """Whether `encode` writes files of this name."""
    known = re.fullmatch(r"(started|parts|index)\.json|part-\d{5,}\.(npy|sum)", name)
    return bool(known) or name == own.MARKER


def _read_plainly(path: Path) -> object:
    try:
        return read_json(path)
    except ConfigError:
        return None


def _encode_part(
    pairs: Sequence[tuple[int, Pair]], tokenizer: ImageTokenizer, views: int, config: DataConfig, seed: int
) -> np.ndarray:
    """uint16 or uint32 [B, V, N] of numbered pairs. A part always has the same batches, whoever encodes it."""
    size, found = max(1, ROWS // views), []
    for first in range(0, len(pairs), size):
        pixels = [_views(index, pair, tokenizer, views, config, seed) for index, pair in pairs[first : first + size]]
        codes = tokenizer.encode(torch.cat(pixels).float() / 255)
        found.append(codes.cpu().numpy().astype(packed_type(tokenizer.vocab)).reshape(len(pixels), views, -1))
    return np.concatenate(found)


def _views(
    index: int, pair: Pair, tokenizer: ImageTokenizer, views: int, config: DataConfig, seed: int
) -> UInt8[Tensor, "V C S S"]:
    """The crops of a picture that are encoded: the middle square, then others by chance; every second one mirrored."""
    picture = read(pair.image, tokenizer.channels)
    noise = np.random.default_rng([seed, 2, index])
    _, height, width = picture.shape
    squares = [middle_square(height, width)]
    squares += [random_square(height, width, config.crop, noise) for _ in range(views - 1)]
    pixels = [resized(picture, square, tokenizer.pixels) for square in squares]
    return torch.stack([p.flip(-1) if config.flip and i % 2 else p for i, p in enumerate(pixels)])
