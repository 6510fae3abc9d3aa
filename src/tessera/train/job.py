"""One training run from its settings: data, tokenizers, sizes, objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from tessera.config import CLIPConfig, DVAEConfig, TextToImageConfig, TrainConfig
from tessera.data.check import Health, check
from tessera.data.codes import Codes
from tessera.data.sources import Pair
from tessera.data.split import split
from tessera.errors import CheckpointError, ConfigError, DataError
from tessera.store.checkpoint import verify
from tessera.store.run import Run, checkpoint_of
from tessera.tokens import image as image_tokens
from tessera.tokens import text as text_tokens
from tessera.tokens.image import ImageTokenizer
from tessera.tokens.text import TextTokenizer
from tessera.train.objectives.clip import TrainCLIP
from tessera.train.objectives.dvae import TrainDVAE
from tessera.train.objectives.protocol import Objective
from tessera.train.objectives.raster import TrainTextToImage

Progress = Callable[[Iterable, int], Iterable]
Kept = TypeVar("Kept")


def build(config: TrainConfig, health: Health | None = None, progress: Progress | None = None) -> Objective:
    """Read the data and the tokenizers, fill in what the config left to them, and make the model.

    Everything that can be wrong with them raises here, before the first step.
    """
    run = Run(config.out)
    run.make()
    codes = Codes(Path(config.data.codes)) if config.data.codes else None
    if not (codes or health):
        health = check(config.data.path, config.data.captions, run.folder / "data.json", progress)
    pairs = codes.pairs if codes else health.pairs if health else []
    skipped = len(health.skipped) if health else 0
    learned, held = split(pairs, config.data.holdout)
    if not learned:
        share = config.data.holdout
        raise DataError(f"All {len(pairs)} pairs fell to the held-out share; lower data.holdout ({share}).")
    if isinstance(config.model, DVAEConfig):
        return TrainDVAE(config, learned, held, skipped)
    text = _text_tokenizer(config, run, learned)
    if isinstance(config.model, CLIPConfig):
        resolved = dataclasses.replace(config, model=resolve(config.model, text, {}, learned + held))
        return TrainCLIP(resolved, learned, held, skipped, text)
    image = _image_tokenizer(config, run)
    shape = {"image_vocab": image.vocab, "grid": image.grid}
    resolved = dataclasses.replace(config, model=resolve(config.model, text, shape, learned + held))
    return TrainTextToImage(resolved, learned, held, skipped, text, image, codes)


def _image_tokenizer(config: TrainConfig, run: Run) -> ImageTokenizer:
    if run.checkpoints():
        return _kept(run, "image_tokenizer", image_tokens.load)
    name = config.tokens.image
    if not name or not Path(name).is_dir():
        raise ConfigError(f"tokens.image {name!r} is not a folder: name a run with a trained image tokenizer.")
    return image_tokens.load(checkpoint_of(name))


def _text_tokenizer(config: TrainConfig, run: Run, pairs: list[Pair]) -> TextTokenizer:
    if run.checkpoints():
        return _kept(run, "text_tokenizer", text_tokens.load)
    return text_tokens.choose(config.tokens.text, [c for p in pairs for c in p.captions], config.tokens.vocab)


def _kept(run: Run, name: str, load: Callable[[Path], Kept]) -> Kept:
    """A tokenizer from the newest checkpoint in which it is whole: it is the same in all of them."""
    wrong = ""
    for checkpoint in reversed(run.checkpoints()):
        try:
            verify(checkpoint, lambda file: file.startswith(f"{name}/"))
            return load(checkpoint / name)
        except CheckpointError as error:
            wrong = wrong or str(error)
    raise CheckpointError(f"No checkpoint of {run.folder} is whole: {wrong}. Restore one, or give a new --out.")


LONGEST = 256
"""Text positions that are chosen without being asked for."""


Reader = TypeVar("Reader", TextToImageConfig, CLIPConfig)


def resolve(model: Reader, text: TextTokenizer, image: dict[str, int], pairs: list[Pair]) -> Reader:
    """The config with vocabularies, grid and text length filled in. Raises ConfigError where they contradict it."""
    found = {"text_vocab": text.vocab, **image}
    for name, value in found.items():
        if (asked := getattr(model, name)) not in (0, value):
            raise ConfigError(
                f"model.{name.replace('_', '-')} is {asked}, but the tokenizer has {value}; leave it at 0."
            )
    longest = max(len(text.encode(c)) for p in pairs for c in p.captions) if not model.text_len else 0
    return dataclasses.replace(model, **found, text_len=model.text_len or min(-(-longest // 8) * 8, LONGEST))
