"""What judges drawn pictures: the protocol, the best by it, the model itself, and a trained CLIP. It does not draw."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tessera.data.pictures import MODES, middle_square, resized
from tessera.errors import CheckpointError
from tessera.generate.likelihood import gain
from tessera.generate.picture import Picture
from tessera.generate.prompts import Prompts
from tessera.hub.pull import located
from tessera.machine.device import choose_device
from tessera.models import saved
from tessera.models.clip import CLIP
from tessera.models.text_to_image import TextToImage
from tessera.store.run import checkpoint_of
from tessera.tokens import text as text_tokens
from tessera.tokens.text import TextTokenizer


class Judge(Protocol):
    """Says how well pictures fit their prompts: a score for each, higher is better."""

    def scores(self, pictures: Sequence[Picture]) -> Tensor: ...


def judged(pictures: Sequence[Picture], judge: Judge) -> list[Picture]:
    """The pictures with their scores. Raises CheckpointError where these are not numbers."""
    scores = judge.scores(pictures).tolist()
    if not all(map(math.isfinite, scores)):
        raise CheckpointError("The judge's scores are not numbers: its weights are damaged. Name another judge.")
    return [replace(picture, score=score) for picture, score in zip(pictures, scores, strict=True)]


def ranked(pictures: Iterable[Picture], count: int) -> list[Picture]:
    """The `count` judged pictures with the highest scores, the best first."""
    return sorted(pictures, key=lambda p: -(p.score or 0.0))[:count]


def best(pictures: Sequence[Picture], judge: Judge, count: int) -> list[Picture]:
    """The `count` pictures that the judge finds to fit best, the best first. Raises CheckpointError where its scores
    are not numbers."""
    return ranked(judged(pictures, judge), count)


class OwnJudge:
    """The model that drew them: pictures that their caption explains best, by what it would be worth to predict them.

    The guidance of Ho & Salimans 2022 pushes along the same ratio, place by place; here it ranks whole pictures.
    """

    def __init__(self, model: TextToImage, prompts: Prompts):
        self.model, self.prompts = model, prompts

    def scores(self, pictures: Sequence[Picture]) -> Tensor:
        """[B], in nats, on the CPU."""
        device = self.model.image_embedding.weight.device
        tokens = self.prompts.tokens([p.prompt for p in pictures], truncate=True).to(device)
        return gain(self.model, tokens, torch.tensor([p.codes for p in pictures], device=device))


class CLIPJudge:
    """Scores pictures against their prompts."""

    def __init__(self, model: CLIP, text: TextTokenizer):
        self.model, self.text = model.eval(), text

    @staticmethod
    def load(run: str | Path, device: str = "auto") -> CLIPJudge:
        """From a clip run. Raises CheckpointError where the folder holds none."""
        folder = located(run)
        if not folder.is_dir():
            raise CheckpointError(f"There is no judge {run}. Train one with: tessera train clip-s-64 --out {run}")
        checkpoint = checkpoint_of(folder)
        model = saved.read(checkpoint)
        if not isinstance(model, CLIP):
            raise CheckpointError(
                f"{run} holds a {type(model).__name__}, which does not rank pictures; name a clip run."
            )
        place = choose_device(device)
        return CLIPJudge(model.to(place), text_tokens.load(checkpoint / "text_tokenizer"))

    @torch.inference_mode()
    def scores(self, pictures: Sequence[Picture]) -> Tensor:
        """[B], on the CPU."""
        c, device = self.model.config, self.model.temperature.device
        prompts = [p.prompt for p in pictures]
        ids = [self.text.encode(p) for p in prompts]
        if (longest := max(map(len, ids), default=0)) > c.text_len:
            warnings.warn(f"The judge reads {c.text_len} of the {longest} tokens of a prompt.", stacklevel=2)
        if max((max(i, default=0) for i in ids), default=0) >= c.text_vocab:
            raise CheckpointError(
                "The judge's text tokenizer has more tokens than its model: they do not belong together."
            )
        tokens = text_tokens.pad(ids, c.text_len, c.text_vocab, True, prompts).to(device)
        mode = MODES[c.channels]
        arrays = [torch.from_numpy(np.array(p.image.convert(mode)).reshape(*p.image.size[::-1], -1)) for p in pictures]
        planes = [a.permute(2, 0, 1) for a in arrays]
        small = torch.stack([resized(a, middle_square(*a.shape[1:]), c.pixels) for a in planes])
        return self.model.scores(tokens, small.to(device).float() / 255).cpu()
