"""Ideas that are measured before the house takes them: crops and flips told to the prior, and vectors of codes as a
second task or as a beginning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tessera.data.batches import Packed, Place, scrambled
from tessera.data.codes import Codes
from tessera.data.pictures import middle_square, random_square
from tessera.data.sources import Pair
from tessera.tokens.text import pad
from tessera.train.objectives.raster import TrainTextToImage
from tessera.train.objectives.vectors import vectors

# Vectors of codes.


def with_vectors(objective: TrainTextToImage, vector: float = 0.0, shared: float = 0.0) -> TrainTextToImage:
    """`vector` weighs a linear map from the last state to the next code's vector, and its squared error (after reAR);
    codes with near vectors have a share `shared` of their weights in common, which is learned in common too."""
    if shared:
        for module in (objective.model.image_embedding, objective.model.image_head):
            parametrize.register_parametrization(
                module, "weight", Shared(module.weight, vectors(objective.image), shared)
            )
    return SecondTask(objective, vector).objective if vector else objective


class SecondTask:
    """The squared error of the next code's vector, added to an objective's loss."""

    def __init__(self, objective: TrainTextToImage, weight: float):
        self.objective, self.plain, model = objective, objective.losses, objective.model
        found = vectors(objective.image)
        self.table = (found - found.mean(0)) / found.std(0)
        self.weight = weight * model.config.image_weight / (1 + model.config.image_weight)
        model.second = self.linear = nn.Linear(model.config.transformer.dim, found.shape[1])
        model.image_head.register_forward_pre_hook(self.keep)
        objective.losses = self.losses  # type: ignore[method-assign]

    def keep(self, head: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        self.hidden, self.codes = inputs

    def losses(self, *arguments: Any) -> Any:
        losses, parts = self.plain(*arguments)
        error = F.mse_loss(self.linear(self.hidden).float(), self.table[self.codes])
        return {"model": losses["model"] + self.weight * error}, {**parts, "vector": error}


class Shared(nn.Module):
    """A table of codes as the sum of its own rows and of a linear map of 64 waves of their vectors."""

    waves: Tensor

    def __init__(self, table: Tensor, vectors: Tensor, share: float, count: int = 64):
        super().__init__()
        angles = vectors @ torch.randn(vectors.shape[1], count) * 1.5 + 2 * math.pi * torch.rand(count)
        self.register_buffer("waves", math.sqrt(2 / count) * angles.cos(), persistent=False)
        self.map = nn.Parameter(torch.randn(count, table.shape[1]) * table.detach().std() * math.sqrt(share))
        with torch.no_grad():
            table.mul_(math.sqrt(1 - share))

    def forward(self, table: Tensor) -> Tensor:
        return table + self.waves @ self.map


# Crops and flips.

WHOLE = (0, 2, 6, 9)
"""Not mirrored, as large as can be, in the middle across and down: where each of the four begins."""
VALUES = 12
"""Mirrored or not; size in 4 steps; place across in 3 and down in 3."""


class Telling:
    """A text tokenizer with ids for the values above its own; a caption by itself is of a whole picture."""

    def __init__(self, inner: Any):
        self.inner, self.vocab = inner, inner.vocab + VALUES

    def encode(self, text: str) -> list[int]:
        return self.ids(WHOLE, self.inner.encode(text))

    def ids(self, values: Sequence[int], caption: list[int]) -> list[int]:
        return [*(self.inner.vocab + int(v) for v in values), *caption]


def values(codes: Codes) -> np.ndarray:
    """What each encoding of each pair shows, [pairs, V, 4]: the crops that `encode` took, drawn again."""
    index, found = codes.index, []
    crop, flip = float(str(index.data["crop"])), bool(index.data["flip"])
    for i, pair in enumerate(codes.pairs):
        width, height = Image.open(str(pair.image)).size
        noise = np.random.default_rng([index.seed, 2, i])
        squares = [middle_square(height, width)]
        squares += [random_square(height, width, crop, noise) for _ in range(index.views - 1)]
        found.append([_coarse(s, height, width, flip and v % 2 == 1) for v, s in enumerate(squares)])
    return np.array(found)


def _coarse(square: tuple[int, int, int], height: int, width: int, flipped: bool) -> tuple[int, int, int, int]:
    top, left, side = square
    whole = min(height, width)
    small = min(3, int((1 - side / whole) * 30))  # sides are 0.866 ... 1 of the largest
    across, down = (_third(at + side / 2 - size / 2, whole) for at, size in ((left, width), (top, height)))
    return int(flipped), 2 + small, 6 + across, 9 + down


def _third(off: float, whole: int) -> int:
    """0 in the middle, 1 and 2 on either side."""
    return 0 if abs(off) < 0.05 * whole else 1 if off < 0 else 2


class Told(Packed):
    """Packed codes whose captions begin with what the encoding shows."""

    def __init__(self, source: Packed, pairs: Sequence[Pair], text: Telling, told: np.ndarray, length: int):
        super().__init__(source.codes, source.captions, source.seed)
        self.ids = [[text.inner.encode(c) for c in p.captions] for p in pairs]
        self.text, self.told, self.length = text, told[source.codes.rows], length

    def __getitems__(self, places: Sequence[Place]) -> list[tuple[Tensor, Tensor]]:
        codes = [codes for _, codes in super().__getitems__(places)]
        index, epoch = np.array(places, dtype=np.int64).T
        views = scrambled(self.seed + 1, epoch, index) % np.uint64(self.told.shape[1])
        captions = scrambled(self.seed, epoch, index)
        ids = [
            self.text.ids(self.told[i, int(v)], self.ids[i][int(c) % len(self.ids[i])])
            for i, v, c in zip(index.tolist(), views, captions, strict=True)
        ]
        tokens = pad(ids, self.length, self.text.vocab, True, [""] * len(ids))
        return list(zip(torch.unbind(tokens), codes, strict=True))
