"""Pictures encoded once: a folder of packed codes, several crops and flips of each. It knows no text model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tessera.config import DataConfig
from tessera.data.folder import Pair
from tessera.data.pictures import middle_square, place, random_square, read, resized
from tessera.errors import DataError
from tessera.files.atomic import write_whole
from tessera.tokens.image import ImageTokenizer

PART = 256
"""Pairs per file: what an interrupted encoding loses at most."""


class Codes:
    """Packed codes, memory-mapped. View 0 of a pair is its middle square; the others are random crops and flips."""

    def __init__(self, folder: Path):
        try:
            self.index = json.loads((folder / "index.json").read_text())
            self.parts = [np.load(folder / name, mmap_mode="r") for name in self.index["parts"]]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder} holds no finished packed codes ({error}). Encode the pictures again.") from error
        self.pairs = [Pair(p["key"], place(p["image"]), tuple(p["captions"])) for p in self.index["pairs"]]
        self.rows = np.arange(len(self.pairs))

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
        """One encoding of each of these pairs, uint16 [B, N]."""
        rows = self.rows[index]
        parts, places = np.divmod(rows, PART)
        views = (chance % np.uint64(self.parts[0].shape[1])).astype(np.int64)
        found = np.empty((len(rows), self.parts[0].shape[2]), dtype=np.uint16)
        for part in np.unique(parts):
            here = parts == part
            found[here] = self.parts[part][places[here], views[here]]
        return found

    def views(self, index: int) -> Tensor:
        """All encodings of a pair: int64 [V, N]."""
        row = self.rows[index]
        return torch.from_numpy(self.parts[row // PART][row % PART].astype(np.int64))


def encode(
    pairs: Sequence[Pair],
    tokenizer: ImageTokenizer,
    folder: Path,
    views: int,
    config: DataConfig,
    seed: int,
    progress: Callable[[Iterable, int], Iterable] | None = None,
) -> Codes:
    """Write `views` encodings of each pair. Interrupted, the same call goes on; other settings begin anew."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"tokenizer": tokenizer.fingerprint(), "views": views, "seed": seed, "data": asdict(config)}
    about["keys"] = hashlib.blake2b("\n".join(p.key for p in pairs).encode("utf-8", "surrogateescape")).hexdigest()
    for left_over in folder.glob(".*"):  # of a process that was killed while it wrote
        left_over.unlink()
    started = folder / "started.json"
    if not started.is_file() or json.loads(started.read_text()) != about:
        for old in folder.iterdir():
            old.unlink()
        write_whole(started, json.dumps(about).encode())
    names = [f"part-{i:05d}.npy" for i in range(-(-len(pairs) // PART))]
    ahead = progress or (lambda items, total: items)
    for number, name in ahead(enumerate(names), len(names)):
        if (folder / name).is_file():
            continue
        rows = [
            _encode_one(number * PART + i, pair, tokenizer, views, config, seed)
            for i, pair in enumerate(pairs[number * PART :][:PART])
        ]
        fresh = folder / f".{name}"
        with fresh.open("wb") as file:
            np.save(file, np.stack(rows))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(folder / name)
    listed = [{"key": p.key, "image": str(p.image), "captions": p.captions} for p in pairs]
    write_whole(folder / "index.json", json.dumps({**about, "parts": names, "pairs": listed}).encode())
    return Codes(folder)


def _encode_one(
    index: int, pair: Pair, tokenizer: ImageTokenizer, views: int, config: DataConfig, seed: int
) -> np.ndarray:
    """uint16 [V, N]."""
    picture = read(pair.image, tokenizer.channels)
    noise = np.random.default_rng([seed, 2, index])
    _, height, width = picture.shape
    squares = [middle_square(height, width)]
    squares += [random_square(height, width, config.crop, noise) for _ in range(views - 1)]
    pixels = [resized(picture, square, tokenizer.pixels) for square in squares]
    pixels = [p.flip(-1) if config.flip and i % 2 else p for i, p in enumerate(pixels)]
    codes = tokenizer.encode(torch.stack(pixels).float() / 255)
    return codes.cpu().numpy().astype(np.uint16)
