"""Ideas that are measured before the house takes them: vectors of codes as a second task and in the tables of codes."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tessera.config.perceptual import Lite0
from tessera.imports import imagenet
from tessera.models.perceptual import LooksLike
from tessera.nn.stack import TokenShift
from tessera.train.objectives.raster import TrainTextToImage
from tessera.train.objectives.vectors import vectors

TAP = 2
"""Which of Lite0's taps has one place for each of 8 x 8 codes, on pictures of 64 pixels: block 4."""


def with_vectors(
    objective: TrainTextToImage,
    vector: float = 0.0,
    shared: float = 0.0,
    align: float = 0.0,
    values: float = 0.0,
    unshifted: str = "",
) -> TrainTextToImage:
    """`vector` weighs a linear map from the last state to the next code's vector, and its squared error (after reAR);
    codes with near vectors have a share `shared` of their weights in common, which is learned in common too; `values`
    is the share that the first layer's values have in those of all others; `unshifted` are the positions, text or
    codes, that a token shift leaves alone."""
    if shared:
        for module in (objective.model.image_embedding, objective.model.image_head):
            parametrize.register_parametrization(
                module, "weight", Shared(module.weight, vectors(objective.image), shared)
            )
    if unshifted:
        unshift(objective.model, unshifted)
    if values:
        FirstValues(objective.model, values)
    if align:
        return Aligned(objective, align).objective
    return SecondTask(objective, vector).objective if vector else objective


def unshift(model: nn.Module, what: str) -> None:
    """Let the text or the codes keep all channels of their own."""
    text = model.layout.text
    for module in model.modules():
        if isinstance(module, TokenShift):
            places = torch.arange(module.sources.shape[1])
            own = places < text if what == "text" else places >= text
            module.sources[:, own] = places[own]


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


UNTIL = 1 / 3
"""Of the training, in which states are aligned."""


class Aligned:
    """States of the middle layer, where they read a code, look like what Lite0 sees at the code's place of the picture
    (REPA, Yu et al. 2025), early in training; what a linear map of them misses in direction is added to the loss."""

    def __init__(self, objective: TrainTextToImage, weight: float):
        self.objective, self.plain, self.weight, model = objective, objective.losses, weight, objective.model
        self.looks = LooksLike(Lite0(), imagenet.efficientnet("lite0"))
        self.text = model.layout.text + 1
        model.aligned = self.linear = nn.Linear(model.config.transformer.dim, self.looks.widths[TAP])
        middle = model.transformer.pairs[len(model.transformer.pairs) // 2][0]
        middle.register_forward_pre_hook(self.keep)
        objective.losses = self.losses  # type: ignore[method-assign]

    def keep(self, branch: nn.Module, inputs: tuple[Tensor, Any]) -> None:
        self.states = inputs[0]

    def losses(self, models: Any, batch: Any, done: float) -> Any:
        losses, parts = self.plain(models, batch, done)
        if done >= UNTIL:
            return losses, parts
        with torch.no_grad():
            pixels = self.objective.image.decode(self.objective.codes(batch))
            seen = self.looks.seen(self.looks._prepared(pixels, 0, 0))[TAP].flatten(2).transpose(1, 2)  # [B, N, C]
        states = F.normalize(self.linear(self.states[:, self.text :]).float(), dim=-1)  # [B, N - 1, C]
        missed = 1 - (states * seen[:, : states.shape[1]]).sum(-1).mean()
        return {"model": losses["model"] + self.weight * missed}, {**parts, "aligned": missed.detach()}


class FirstValues:
    """The values of every layer of attention are a mean of its own and the first layer's (Zhou et al. 2024, "Value
    residual learning", arXiv:2410.17897, eq. 5), in training and in drawing."""

    def __init__(self, model: nn.Module, share: float):
        self.share, self.first = share, torch.empty(0)
        own = [attend.fn.qkv for attend, _ in model.transformer.pairs]
        own[0].register_forward_hook(self.keep)
        for qkv in own[1:]:
            qkv.register_forward_hook(self.mix)

    def keep(self, qkv: nn.Module, inputs: tuple[Tensor], found: Tensor) -> None:
        self.first = found.chunk(3, -1)[2]

    def mix(self, qkv: nn.Module, inputs: tuple[Tensor], found: Tensor) -> Tensor:
        q, k, v = found.chunk(3, -1)
        return torch.cat((q, k, torch.lerp(v, self.first, self.share)), -1)


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
