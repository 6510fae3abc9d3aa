"""Codes have vectors, and codes with near vectors look alike. It knows no pictures."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tessera.errors import ConfigError
from tessera.models.text_to_image import TextToImage
from tessera.tokens.image import ImageTokenizer


def vectors(image: ImageTokenizer) -> Float[Tensor, "K D"]:
    """The vector of every code. Raises ConfigError where the tokenizer's codes have none that say how near they are."""
    quantizer = getattr(getattr(image, "model", None), "quantize", None)
    if quantizer is None or not hasattr(quantizer, "vectors"):
        raise ConfigError(
            "This image tokenizer does not tell which codes are near each other: leave out --noise.by near and "
            "--tokens.alike."
        )
    with torch.no_grad():
        return quantizer.vectors(torch.arange(image.vocab)[None])[0].float().cpu()


def neighbours(vectors: Float[Tensor, "K D"], count: int) -> Int[Tensor, "K M"]:
    """The nearest other codes of each code, the nearest first."""
    found = []
    for rows in torch.arange(len(vectors)).split(1024):  # 65,536 codes have 4 billion distances
        distances = torch.cdist(vectors[rows], vectors)
        distances[torch.arange(len(rows)), rows] = torch.inf
        found.append(distances.topk(min(count, len(vectors) - 1), largest=False).indices)
    return torch.cat(found)


@torch.no_grad()
def begin_alike(model: TextToImage, vectors: Float[Tensor, "K D"], share: float) -> None:
    """Give codes with near vectors near embeddings and near rows of the head.

    Of the fresh weights' variance, a share is that of random Fourier features of the vectors (Rahimi & Recht 2007),
    whose kernel is a Gaussian as wide as the vectors' own spread.
    """
    spread = (vectors - vectors.mean(0)) / vectors.std(0).clamp(min=1e-6)
    tables = {id(table): table for table in (model.image_embedding.weight, model.image_head.weight)}  # one where tied
    for table in tables.values():
        count = table.shape[1]
        angles = spread @ torch.randn(spread.shape[1], count) + 2 * math.pi * torch.rand(count)
        common = angles.cos() * table.std() * math.sqrt(2)
        table.mul_(math.sqrt(1 - share)).add_(common, alpha=math.sqrt(share))
