"""What is judged: a trained model with the pictures that it never saw. It knows no training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tessera.data.check import check
from tessera.data.codes import Codes
from tessera.data.pictures import middle_square, read, resized
from tessera.data.sources import Pair
from tessera.data.split import split
from tessera.errors import ConfigError, DataError
from tessera.files.download import starts_programs
from tessera.machine.device import choose_device
from tessera.models import saved
from tessera.store.run import Run, checkpoint_of
from tessera.tokens import image as image_tokens
from tessera.tokens import text as text_tokens
from tessera.tokens.image import Frozen, ImageTokenizer
from tessera.tokens.text import TextTokenizer


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model, its tokenizers, and the split of its data."""

    model: nn.Module
    image: ImageTokenizer | None
    """None where the model has to do with no codes."""
    text: TextTokenizer | None
    learned: Sequence[Pair]
    held: Sequence[Pair]
    skipped: int
    """How many pictures were left out, because they cannot be used."""
    curves: Sequence[dict[str, Any]]
    """The rows of metrics.jsonl."""

    @staticmethod
    def load(run: str | Path, data: str = "", captions: str = "", device: str = "auto") -> Subject:
        """From a run folder alone, on any machine. `data` and `captions` say where the pictures are, if not where the
        training had them.

        Raises CheckpointError where the folder is not a run with a whole checkpoint, ConfigError or DataError where its
        pictures are not there.
        """
        of = Run(run)
        config, checkpoint, place = of.config(), checkpoint_of(run), choose_device(device)
        model = saved.read(checkpoint).to(place)
        kept = checkpoint / "image_tokenizer"
        image = image_tokens.load(kept) if kept.is_dir() else _itself(model)
        if image:
            image.to(place)
        text = text_tokens.load(checkpoint / "text_tokenizer") if (checkpoint / "text_tokenizer").is_dir() else None
        pairs, skipped = _pairs(of, dataclasses.replace(config.data, path=data) if data else config.data, captions)
        learned, held = split(pairs, config.data.holdout)
        return Subject(
            model=model, image=image, text=text, learned=learned, held=held, skipped=skipped, curves=of.read_metrics()
        )

    def pixels(self, pairs: Sequence[Pair], most: int) -> Tensor:
        """The middle squares of the first pictures that can be read, [B, C, S, S] in 0 ... 1."""
        return self.readable(pairs[:most])[1].float() / 255

    def readable(self, pairs: Sequence[Pair]) -> tuple[list[Pair], Tensor]:
        """The pairs whose pictures can be read, and their middle squares, uint8 [B, C, S, S]."""
        assert self.image is not None, "pictures are seen through the image tokenizer"
        channels, side, kept, found = self.image.channels, self.image.pixels, [], []
        for pair in pairs:
            try:
                picture = read(pair.image, channels)
            except DataError:  # packed codes outlive the pictures they were made of
                continue
            kept.append(pair)
            found.append(resized(picture, middle_square(*picture.shape[1:]), side))
        return kept, torch.stack(found) if found else torch.zeros(0, channels, side, side, dtype=torch.uint8)

    @torch.no_grad()
    def codes(self, pixels: Tensor, rows: int = 32) -> Tensor:
        """The codes of pictures, [B, N], `rows` at a time."""
        assert self.image is not None
        return torch.cat([self.image.encode(part).cpu() for part in pixels.split(rows)])

    @torch.no_grad()
    def decoded(self, codes: Tensor, rows: int = 32) -> Tensor:
        """What the image tokenizer makes of codes, [B, C, S, S] in 0 ... 1."""
        assert self.image is not None
        device = next(self.model.parameters()).device
        return torch.cat([self.image.decode(part.to(device)).float().cpu() for part in codes.split(rows)])


def _itself(model: nn.Module) -> ImageTokenizer | None:
    """The model as an image tokenizer, where it is one."""
    return Frozen(model) if isinstance(model, image_tokens.NETWORKS) else None


def _pairs(run: Run, data: Any, captions: str) -> tuple[list[Pair], int]:
    """All pairs of the run, and how many pictures were left out."""
    if starts_programs(data.path):
        raise ConfigError(
            f"{run.folder}/config.json takes its pictures from the command '{data.path[:300]}'. What a run folder says "
            "is never run; give the data yourself."
        )
    if not data.path and data.codes:
        return Codes(Path(data.codes)).pairs, 0
    health = check(data.path, captions or data.captions, run.folder / "data.json")
    return health.pairs, len(health.skipped)
