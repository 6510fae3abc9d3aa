"""Batches whose order is a function of (seed, step, rank), so resuming needs no saved position. It knows no model."""

from __future__ import annotations

import atexit
import itertools
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache, partial
from typing import NamedTuple
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tessera.config import DataConfig, NoiseConfig
from tessera.data.codes import Codes
from tessera.data.pictures import middle_square, random_square, read, resized
from tessera.data.sources import Pair
from tessera.errors import DataError
from tessera.machine.launch import holding_signals, leave_signals_to_the_parent
from tessera.tokens.text import TextTokenizer, pad


class Batch(NamedTuple):
    """tokens [B, T] (or [B, 0]) and either pixels uint8 [B, C, S, S] or codes [B, N]; the other has no rows."""

    tokens: Tensor
    pixels: Tensor
    codes: Tensor
    order: Tensor = torch.zeros(0, 0, dtype=torch.long)
    """The places [B, N] as they are read, for an objective whose `chance` draws them; no rows for others."""


class Place(NamedTuple):
    """One sample to read: which pair, and in which epoch, which decides its crop and its caption."""

    index: int
    epoch: int


@lru_cache(maxsize=2)
def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def places(count: int, batch: int, seed: int, step: int, rank: int = 0, world: int = 1) -> list[Place]:
    """The samples of one rank at one step; `batch` counts all ranks. Epochs follow each other without a gap."""
    first = step * batch + rank * (batch // world)
    wanted = range(first, first + batch // world)
    orders = {epoch: order(count, seed, epoch) for epoch in {i // count for i in wanted}}
    return [Place(int(orders[i // count][i % count]), i // count) for i in wanted]


class Plan:
    """The samples of every step from `start` on, as a batch sampler. It never ends; the loop decides when to stop."""

    def __init__(self, count: int, batch: int, seed: int, start: int, rank: int = 0, world: int = 1):
        self.count, self.batch, self.seed, self.start, self.rank, self.world = count, batch, seed, start, rank, world

    def __iter__(self) -> Iterator[list[Place]]:
        for step in itertools.count(self.start):
            yield places(self.count, self.batch, self.seed, step, self.rank, self.world)


class Pictures(Dataset):
    """Pixels and a caption's ids for a Place; every random choice is a function of (seed, epoch, pair)."""

    def __init__(
        self, pairs: Sequence[Pair], config: DataConfig, pixels: int, channels: int, seed: int, captions: Captions
    ):
        self.pairs, self.config, self.pixels, self.channels = pairs, config, pixels, channels
        self.seed, self.captions = seed, captions

    def __getitem__(self, place: Place) -> tuple[Tensor, Tensor]:
        noise = np.random.default_rng([self.seed, 1, place.epoch, place.index])
        pair = self.pairs[place.index]
        picture = augmented(read(pair.image, self.channels), self.pixels, self.config.crop, self.config.flip, noise)
        return self.captions.pick(place.index, noise), picture

    def plain(self, index: int) -> tuple[Tensor, Tensor]:
        """The first caption and the middle square: what held-out losses are measured on."""
        picture = read(self.pairs[index].image, self.channels)
        return self.captions.rows(index)[0], resized(picture, middle_square(*picture.shape[1:]), self.pixels)

    def gather(self, items: Sequence[tuple[Tensor, Tensor]]) -> Batch:
        tokens, pixels = zip(*items, strict=True)
        return Batch(torch.stack(tokens), torch.stack(pixels), torch.zeros(0, 0, dtype=torch.long))


def augmented(picture: Tensor, pixels: int, crop: float, flip: bool, noise: np.random.Generator) -> Tensor:
    """A random square of the picture, mirrored with probability 1/2 if `flip`."""
    _, height, width = picture.shape
    square = random_square(height, width, crop, noise) if crop < 1 else middle_square(height, width)
    small = resized(picture, square, pixels)
    return small.flip(-1) if flip and noise.random() < 0.5 else small


def scrambled(seed: int, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
    """A number 0 ... 2^64 - 1 for each (seed, epoch, pair): two rounds of SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed % 2**64) + epoch.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        for part in (index.astype(np.uint64), np.uint64(1)):
            z = (z + part) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return z


class Captions:
    """The ids of every caption, encoded once, padded on demand. NoCaptions is for models without text."""

    def __init__(self, pairs: Sequence[Pair], tokenizer: TextTokenizer, length: int, truncate: bool):
        self.vocab, self.length = tokenizer.vocab, length
        self.ids = [[tokenizer.encode(c) for c in pair.captions] for pair in pairs]
        for pair, rows in zip(pairs, self.ids, strict=True):
            if not truncate:  # refuse before the first step, not in the middle of an epoch
                pad(rows, length, self.vocab, False, [pair.key] * len(rows))

    def rows(self, index: int) -> Tensor:
        ids = self.ids[index]
        return pad(ids, self.length, self.vocab, True, [""] * len(ids))

    @cached_property
    def table(self) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """All captions padded, int32 [captions, T]; the row where each pair's captions begin, and how many it has."""
        counts = np.array([len(rows) for rows in self.ids])
        flat = [ids for rows in self.ids for ids in rows]
        padded = pad(flat, self.length, self.vocab, True, [""] * len(flat)).to(torch.int32)
        return padded, np.concatenate(([0], counts.cumsum()[:-1])), counts

    def some(self, index: np.ndarray, chance: np.ndarray) -> Tensor:
        """One caption of each of these pairs, [B, T]."""
        padded, first, counts = self.table
        rows = first[index] + (chance % counts[index].astype(np.uint64)).astype(np.int64)
        return padded[torch.from_numpy(rows)].long()

    def pick(self, index: int, noise: np.random.Generator) -> Tensor:
        ids = self.ids[index]
        return pad([ids[int(noise.integers(len(ids)))]], self.length, self.vocab, True, [""])[0]


class MixedCaptions(Captions):
    """Each time one to `noise.join` captions of a picture, in any order, one after the other, without a share of their
    words; every choice is a function of `chance`. What is too long is cut."""

    def __init__(
        self, pairs: Sequence[Pair], tokenizer: TextTokenizer, length: int, truncate: bool, noise: NoiseConfig
    ):
        super().__init__(pairs, tokenizer, length, truncate)
        self.pairs, self.tokenizer, self.noise = pairs, tokenizer, noise

    def some(self, index: np.ndarray, chance: np.ndarray) -> Tensor:
        mixed = [self._mixed(int(i), np.random.default_rng(int(c))) for i, c in zip(index, chance, strict=True)]
        return pad(mixed, self.length, self.vocab, True, [""] * len(mixed))

    def pick(self, index: int, noise: np.random.Generator) -> Tensor:
        return pad([self._mixed(index, noise)], self.length, self.vocab, True, [""])[0]

    def _mixed(self, index: int, noise: np.random.Generator) -> list[int]:
        captions = self.pairs[index].captions
        count = min(len(captions), int(noise.integers(1, self.noise.join + 1)))
        words = [word for i in noise.permutation(len(captions))[:count] for word in captions[i].split()]
        kept = [w for w, chance in zip(words, noise.random(len(words)), strict=True) if chance >= self.noise.drop_words]
        return self.tokenizer.encode(" ".join(kept))


def captions_of(
    pairs: tuple[Sequence[Pair], Sequence[Pair]], tokenizer: TextTokenizer, length: int, truncate: bool,
    noise: NoiseConfig,
) -> list[Captions]:  # fmt: skip
    """Of the pairs that are learned, mixed where the settings ask for it, and of those held out."""
    learned, held = (Captions(part, tokenizer, length, truncate) for part in pairs)
    if noise.join > 1 or noise.drop_words:
        learned = MixedCaptions(pairs[0], tokenizer, length, truncate, noise)
    return [learned, held]


class NoCaptions(Captions):
    def __init__(self) -> None:
        pass

    def rows(self, index: int) -> Tensor:
        return torch.zeros(1, 0, dtype=torch.long)

    def pick(self, index: int, noise: np.random.Generator) -> Tensor:
        return torch.zeros(0, dtype=torch.long)


class Packed(Dataset):
    """Codes and a caption's ids for a Place, from pictures that were encoded beforehand."""

    def __init__(self, codes: Codes, captions: Captions, seed: int):
        self.codes, self.captions, self.seed = codes, captions, seed

    def __getitem__(self, place: Place) -> tuple[Tensor, Tensor]:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[Place]) -> list[tuple[Tensor, Tensor]]:
        """A whole batch at once, without a Python loop over samples."""
        index, epoch = np.array(places, dtype=np.int64).T
        chance = scrambled(self.seed, epoch, index)
        tokens = self.captions.some(index, chance)
        codes = torch.from_numpy(self.codes.some(index, scrambled(self.seed + 1, epoch, index)).astype(np.int64))
        return list(zip(tokens, codes, strict=True))

    def plain(self, index: int) -> tuple[Tensor, Tensor]:
        return self.captions.rows(index)[0], self.codes.views(index)[0]

    def gather(self, items: Sequence[tuple[Tensor, Tensor]]) -> Batch:
        tokens, codes = zip(*items, strict=True)
        return Batch(torch.stack(tokens), torch.zeros(0, 0, 0, 0, dtype=torch.uint8), torch.stack(codes))


def stream(
    source: Pictures | Packed,
    count: int,
    batch: int,
    seed: int,
    start: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Iterator[Batch]:
    """One rank's part of each batch from step `start` on. `workers` processes read ahead and change no numbers."""
    loader = DataLoader(
        source,
        batch_sampler=Plan(count, batch, seed, start, rank, world),  # type: ignore[arg-type]
        collate_fn=source.gather,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),  # so that copies to the device go on beside its work
        worker_init_fn=partial(leave_signals_to_the_parent, os.getpid()),
        generator=torch.Generator(),  # the loader seeds its workers from here, not from the noise of the training step
    )
    return Ahead(loader)


class WorkerDied(DataError):
    """A worker process died."""


class Ahead(Iterator[Batch]):
    """The batches that a loader's workers read ahead; their errors become one sentence."""

    def __init__(self, loader: DataLoader):
        child = getattr(signal, "SIGCHLD", None) if threading.current_thread() is threading.main_thread() else None
        before = signal.getsignal(child) if child else None
        with holding_signals():  # a worker that starts must not be hit by what its parent is to answer
            self.batches: Iterator[Batch] = iter(loader)
        if child:  # the library would raise whatever the main thread is at, a save for instance; `next` notices too
            signal.signal(child, before)
        WORKERS.update(getattr(self.batches, "_workers", ()))

    def __next__(self) -> Batch:
        try:
            return next(self.batches)
        except DataError as error:  # comes with the worker's traceback
            raise DataError(str(error).strip().rpartition("DataError: ")[2]) from error
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):
                raise
            raise WorkerDied(
                f"A worker process died: {error}. If memory ran out, use fewer workers: --data.workers."
            ) from error


WORKERS: WeakSet = WeakSet()


@atexit.register
def _end_workers() -> None:
    """A worker that waits for a dead disk does not answer; killing it loses nothing."""
    for worker in list(WORKERS):
        if worker.is_alive():
            worker.kill()


def plain_batches(
    source: Pictures | Packed, count: int, batch: int, rank: int = 0, world: int = 1
) -> Iterator[tuple[Batch, int]]:
    """Each sample once, in order, without augmentation; ranks take turns. A rank that has no batch left gets the last
    one again with share 0, so that all ranks run the model equally often."""
    starts = range(0, count, batch)
    for turn in range(0, len(starts), world):
        mine = turn + rank
        start = starts[min(mine, len(starts) - 1)]
        samples = [source.plain(i) for i in range(start, min(start + batch, count))]
        yield source.gather(samples), int(mine < len(starts))
