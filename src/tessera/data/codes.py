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
from tessera.data.sources import Pair
from tessera.errors import ConfigError, DataError
from tessera.files import own
from tessera.files.atomic import whole, write_whole
from tessera.files.claim import claim
from tessera.tokens.image import ImageTokenizer

ROWS = 64
"""Crops that are encoded together."""
PART = 256
"""Pairs per file; an interruption loses at most this many."""

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
            raise DataError(f"{folder} holds no finished packed codes ({error}). Encode the pictures again.") from error
        self.pairs = [Pair(p.key, place(p.image), p.captions) for p in self.index.pairs]
        self.rows = np.arange(len(self.pairs))

    def _compare(self) -> None:
        """Raises ValueError if the parts do not agree with the index."""
        count, views = len(self.index.pairs), self.index.views
        if len({p.key for p in self.index.pairs}) < count:
            raise ValueError("two pairs have the same key")
        for number, part in enumerate(self.parts):
            rows = min(PART, count - number * PART)
            if part.dtype not in TYPES or part.ndim != 3 or part.shape[:2] != (rows, views):
                known = " or ".join(map(str, TYPES))
                raise ValueError(f"part {number} holds {part.dtype} {part.shape}, not {known} ({rows}, {views}, N)")
            if (part.dtype, part.shape[2]) != (self.parts[0].dtype, self.parts[0].shape[2]):
                raise ValueError("its parts hold different numbers of codes, or numbers of another type")
        if len(self.parts) != -(-count // PART) or not self.parts:
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
        parts, places = np.divmod(rows, PART)
        views = (chance % np.uint64(self.parts[0].shape[1])).astype(np.int64)
        found = np.empty((len(rows), self.parts[0].shape[2]), dtype=self.parts[0].dtype)
        for part in np.unique(parts):
            here = parts == part
            found[here] = self.parts[part][places[here], views[here]]
        return found

    def views(self, index: int) -> Tensor:
        """All encodings of a pair: int64 [V, N]."""
        row = self.rows[index]
        return torch.from_numpy(self.parts[row // PART][row % PART].astype(np.int64))


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
    progress: Callable[[Iterable, int], Iterable] | None = None,
) -> Codes:
    """Write `views` encodings of each pair. The same call resumes; other settings start again from the beginning."""
    begin(folder)
    about = {"tokenizer": tokenizer.fingerprint(), "views": views, "seed": seed, "data": asdict(config)}
    about["keys"] = hashlib.blake2b("\n".join(p.key for p in pairs).encode("utf-8", "surrogateescape")).hexdigest()
    own.sweep(folder)
    started = folder / "started.json"
    if _read_plainly(started) != json.loads(json.dumps(about)):
        for old in folder.iterdir():
            if ours(old.name) and old.name != own.MARKER:
                own.remove(old)
        write_whole(started, json.dumps(about))
    names = [f"part-{i:05d}.npy" for i in range(-(-len(pairs) // PART))]
    ahead = progress or (lambda items, total: items)
    for number, name in ahead(enumerate(names), len(names)):
        if (folder / name).is_file():
            continue
        own_pairs = list(enumerate(pairs))[number * PART :][:PART]
        with whole(folder / name) as fresh, fresh.open("wb") as file:
            np.save(file, _encode_part(own_pairs, tokenizer, views, config, seed))
    listed = [{"key": p.key, "image": str(p.image), "captions": p.captions} for p in pairs]
    write_whole(folder / "index.json", json.dumps({**about, "parts": names, "pairs": listed}))
    return Codes(folder)


def begin(folder: Path) -> None:
    """Claim the folder for codes, before any work. Raises ConfigError if it holds anything else."""
    claim(folder, KIND, lambda old: all(ours(p.name) for p in old.iterdir()))


def ours(name: str) -> bool:
    """Whether `encode` writes files of this name."""
    return bool(re.fullmatch(r"(started|index)\.json|part-\d{5,}\.npy", name)) or name == own.MARKER


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
