"""Codes have vectors, and codes with near vectors look alike: two ways to tell a prior. It knows no pictures."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.models.text_to_image import TextToImage


class VectorHead(nn.Module):
    """A linear map to the next code's vector, and its squared error (after reAR, He et al. 2025)."""

    table: Tensor

    def __init__(self, dim: int, vectors: Float[Tensor, "K D"], weight: float):
        super().__init__()
        self.linear, self.weight = nn.Linear(dim, vectors.shape[1]), weight
        self.register_buffer("table", (vectors - vectors.mean(0)) / vectors.std(0), persistent=False)

    def forward(self, hidden: Float[Tensor, "B N E"], codes: Int[Tensor, "B N"]) -> Float[Tensor, ""]:
        return self.weight * F.mse_loss(self.linear(hidden).float(), self.table[codes])


@torch.no_grad()
def start_alike(model: TextToImage, vectors: Float[Tensor, "K D"], share: float) -> None:
    """Give codes with near vectors near embeddings and near rows of the head: random Fourier features of the vectors
    (Rahimi & Recht 2007), whose spread is that of the fresh weights."""
    for table in (model.image_embedding.weight, model.image_head.weight):
        waves = vectors @ torch.randn(vectors.shape[1], table.shape[1]) * 1.5
        smooth = math.sqrt(2) * torch.cos(waves + 2 * math.pi * torch.rand(table.shape[1])) * table.std()
        table.mul_(math.sqrt(1 - share)).add_(smooth, alpha=math.sqrt(share))
