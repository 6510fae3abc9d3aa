"""Held-out captions drawn, batch by batch, each kept: a stopped evaluation goes on. It knows no figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tessera.config import SampleConfig
from tessera.data.sources import Pair
from tessera.evaluate.kept import Arrays, Kept, digest, of_file
from tessera.evaluate.looking import Ahead
from tessera.generate.pipeline import Pipeline
from tessera.store.checkpoint import CHECKSUMS, SETTINGS


@dataclass(frozen=True)
class Asked:
    """A drawing that is asked for."""

    picture: int
    """Whose caption it is, by its place among the held-out pairs."""
    caption: str
    seed: int


@dataclass(frozen=True)
class Drawings:
    """What was asked for and what came."""

    asked: Sequence[Asked]
    codes: Tensor
    """[B, N]."""
    seconds: float
    """Of drawing them, whenever that was."""


def asked(held: Sequence[Pair], count: int, seed: int) -> list[Asked]:
    """`count` captions: the first of every held-out picture, then every second one, and so on, each with a seed of its
    own."""
    places = [(i % len(held), i // len(held)) for i in range(count)]
    return [Asked(p, held[p].captions[turn % len(held[p].captions)], seed + i) for i, (p, turn) in enumerate(places)]


def draw(
    load: Callable[[], Pipeline], of: str, wanted: Sequence[Asked], sampling: SampleConfig, batch: int, kept: Kept,
    ahead: Ahead,
) -> Drawings:  # fmt: skip
    """All drawings, those of an earlier call read again. `of` is the digest of the model; `load` is called once, where
    something is to be drawn."""
    pipelines: list[Pipeline] = []
    plain = replace(sampling, ahead=1)  # guessing ahead changes no picture

    def make(part: Sequence[Asked]) -> Arrays:
        pipelines[:] = pipelines or [load()]
        began = time.monotonic()
        prompts, seeds = [a.caption for a in part], [a.seed for a in part]
        pictures = pipelines[0].draw(prompts, seeds, sampling, batch=len(part), truncate=True)
        codes = np.array([p.codes for p in pictures], dtype=np.uint32)
        return {"codes": codes, "seconds": np.array(time.monotonic() - began)}

    parts = [wanted[i : i + batch] for i in range(0, len(wanted), batch)]
    found = []
    for part in ahead(parts, len(parts)):
        about = [of, asdict(plain), [[a.caption, a.seed] for a in part]]
        found.append(kept.get("drawn", about, lambda part=part: make(part)))
    codes = np.concatenate([f["codes"] for f in found]).astype(np.int64)
    return Drawings(wanted, torch.from_numpy(codes), sum(float(f["seconds"]) for f in found))


def digest_of(checkpoint: Path) -> str:
    """Equal for checkpoints that draw the same: the weights of the model and of both tokenizers."""
    files = sorted(p for name in ("", "image_tokenizer", "text_tokenizer") for p in (checkpoint / name).glob("*"))
    return digest([of_file(p) for p in files if p.is_file() and p.name not in (SETTINGS, CHECKSUMS)])
