"""What is trained: a model with its data, its loss and what a checkpoint of it holds. It knows no engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from tessera.config import CLIPConfig, DVAEConfig, TextToImageConfig, TrainConfig
from tessera.data.batches import Batch, Captions, NoCaptions, Packed, Pictures, plain_batches, split, stream
from tessera.data.check import Health, check
from tessera.data.codes import Codes
from tessera.data.folder import Pair
from tessera.errors import CheckpointError, ConfigError, DataError
from tessera.models import saved
from tessera.models.clip import CLIP
from tessera.models.dvae import DiscreteVAE
from tessera.models.text_to_image import TextToImage
from tessera.store.checkpoint import verify
from tessera.store.run import Run, checkpoint_of
from tessera.tokens import image as image_tokens
from tessera.tokens import text as text_tokens
from tessera.tokens.image import Frozen, ImageTokenizer
from tessera.tokens.text import TextTokenizer

Parts = dict[str, Tensor]


class Objective(Protocol):
    """`model` is called through the engine, which may have wrapped it; `loss` gets it as an argument."""

    config: TrainConfig
    pairs: list[Pair]
    held: list[Pair]
    skipped: int

    model: Any

    @property
    def encoder(self) -> Any: ...
    @property
    def image(self) -> ImageTokenizer | None: ...
    def place(self, device: torch.device) -> None: ...
    def chance(self, batch: Batch) -> Batch: ...
    def batches(self, start: int, rank: int = 0, world: int = 1) -> Iterator[Batch]: ...
    def held_batches(self, rank: int = 0, world: int = 1) -> Iterator[tuple[Batch, int]]: ...
    def loss(self, model: nn.Module, batch: Batch, done: float) -> tuple[Tensor, Parts]: ...
    def held_loss(self, model: nn.Module, batch: Batch) -> Parts: ...
    def held_codes(self) -> list[Tensor]: ...
    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None: ...


class Paired:
    """What all objectives do alike: batches of pairs, by rank, and held-out ones."""

    config: TrainConfig
    pairs: list[Pair]
    held: list[Pair]
    source: Pictures | Packed
    held_source: Pictures | Packed

    encoder: Any = None
    """The config of the image tokenizer that encodes in the step, where one does."""

    def place(self, device: torch.device) -> None: ...

    def chance(self, batch: Batch) -> Batch:
        """What chance does to a batch on its way, before it is split, so that the split changes nothing."""
        return batch

    def batches(self, start: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        c, plan = self.config, (start, rank, world)
        return stream(self.source, len(self.pairs), c.optim.batch, c.seed, *plan, workers=self.workers)

    def held_batches(self, rank: int = 0, world: int = 1) -> Iterator[tuple[Batch, int]]:
        rows = max(1, self.config.optim.batch // self.config.optim.accumulate)  # no more at a time than in training
        return plain_batches(self.held_source, len(self.held), rows, rank, world)

    @property
    def workers(self) -> int:
        return 0 if isinstance(self.source, Packed) else self.config.data.workers  # packed codes need no work


class TrainDVAE(Paired):
    """Reconstruct pictures through their codes. The held-out "loss" is that of the hard codes, without noise."""

    def __init__(self, config: TrainConfig, pairs: list[Pair], held: list[Pair], skipped: int):
        assert isinstance(config.model, DVAEConfig)
        self.config, self.pairs, self.held, self.skipped = config, pairs, held, skipped
        torch.manual_seed(config.seed)
        self.model = DiscreteVAE(config.model)
        sources = [
            _pictures(config, p, NoCaptions(), config.model.pixels, config.model.channels) for p in (pairs, held)
        ]
        self.source, self.held_source = sources

    @property
    def image(self) -> ImageTokenizer:
        return Frozen(self.model)

    def loss(self, model: nn.Module, batch: Batch, done: float) -> tuple[Tensor, Parts]:
        temperature = self.temperature(done)
        total, reconstruction, kl = model(floats(batch.pixels), temperature)
        return total, {"reconstruction": reconstruction, "kl": kl, "temperature": torch.tensor(temperature)}

    def temperature(self, done: float) -> float:
        """Geometrically from temperature to temperature_end, as a function of progress alone."""
        c = self.model.config
        return c.temperature * (c.temperature_end / c.temperature) ** done

    def held_loss(self, model: nn.Module, batch: Batch) -> Parts:
        pixels = floats(batch.pixels)
        wrong = (self.model.decode(self.model.encode(pixels)) - pixels) / self.model.std
        return {"loss": wrong.square().mean()}

    def codes(self, batch: Batch) -> Tensor:
        return self.model.encode(floats(batch.pixels))

    def held_codes(self) -> list[Tensor]:
        return [self.codes(batch) for batch, _ in self.held_batches()]

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        saved.write(folder, self.model, weights)


class TrainTextToImage(Paired):
    """Predict captions and codes. The held-out "loss" is the image part: nats per code."""

    def __init__(
        self,
        config: TrainConfig,
        pairs: list[Pair],
        held: list[Pair],
        skipped: int,
        text: TextTokenizer,
        image: ImageTokenizer,
        codes: Codes | None,
    ):
        m = config.model
        assert isinstance(m, TextToImageConfig)
        self.pairs, self.held, self.skipped, self.text, self.image = pairs, held, skipped, text, image
        captions = [Captions(p, text, m.text_len, config.data.truncate) for p in (pairs, held)]
        self.config = config
        torch.manual_seed(config.seed)
        self.model = TextToImage(m)
        if codes:
            sources = [Packed(codes.only(p), c, config.seed) for p, c in zip((pairs, held), captions, strict=True)]
        else:
            both = zip((pairs, held), captions, strict=True)
            sources = [_pictures(config, p, c, image.pixels, image.channels) for p, c in both]
        self.source, self.held_source = sources
        self.encoder = None if codes else image.config

    def place(self, device: torch.device) -> None:
        self.image.to(device)

    def chance(self, batch: Batch) -> Batch:
        forgotten = torch.rand(len(batch.tokens)).to(batch.tokens.device) < self.config.optim.drop_condition
        return batch._replace(tokens=self.model.forget(batch.tokens, forgotten))

    def loss(self, model: nn.Module, batch: Batch, done: float) -> tuple[Tensor, Parts]:
        total, text, image = model(batch.tokens, self.codes(batch))
        return total, {"text": text, "image": image}

    def held_loss(self, model: nn.Module, batch: Batch) -> Parts:
        _, text, image = model(batch.tokens, self.codes(batch))
        return {"loss": image, "text": text}

    def codes(self, batch: Batch) -> Tensor:
        return batch.codes if len(batch.codes) else self.image.encode(floats(batch.pixels))

    def held_codes(self) -> list[Tensor]:
        return [self.codes(batch) for batch, _ in self.held_batches()]

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        saved.write(folder, self.model, weights)
        self.image.save(folder / "image_tokenizer")
        self.text.save(folder / "text_tokenizer")


class TrainCLIP(Paired):
    """Tell a picture's caption from those of the others in its batch. Held-out batches are as large."""

    image: ImageTokenizer | None = None

    def __init__(self, config: TrainConfig, pairs: list[Pair], held: list[Pair], skipped: int, text: TextTokenizer):
        m = config.model
        assert isinstance(m, CLIPConfig)
        self.config, self.pairs, self.held, self.skipped, self.text = config, pairs, held, skipped, text
        torch.manual_seed(config.seed)
        self.model = CLIP(m)
        captions = [Captions(p, text, m.text_len, config.data.truncate) for p in (pairs, held)]
        both = zip((pairs, held), captions, strict=True)
        self.source, self.held_source = [_pictures(config, p, c, m.pixels, m.channels) for p, c in both]

    def loss(self, model: nn.Module, batch: Batch, done: float) -> tuple[Tensor, Parts]:
        total, accuracy = model(batch.tokens, floats(batch.pixels))
        return total, {"accuracy": accuracy}

    def held_loss(self, model: nn.Module, batch: Batch) -> Parts:
        total, accuracy = model(batch.tokens, floats(batch.pixels))
        return {"loss": total, "accuracy": accuracy}

    def held_codes(self) -> list[Tensor]:
        return []

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        saved.write(folder, self.model, weights)
        self.text.save(folder / "text_tokenizer")


def floats(pixels: Tensor) -> Tensor:
    """uint8 -> 0 ... 1, channels last."""
    return pixels.to(torch.float32, memory_format=torch.channels_last) / 255


def _pictures(config: TrainConfig, pairs: list[Pair], captions: Captions, pixels: int, channels: int) -> Pictures:
    return Pictures(pairs, config.data, pixels, channels, config.seed, captions)


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
