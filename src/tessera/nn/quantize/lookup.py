"""The nearest vector of a learned codebook. It knows no pictures."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import Lookup
from tessera.nn.quantize.protocol import Quantized, used


class Nearest(nn.Module):
    """The code whose vector lies nearest (VQ-VAE, van den Oord et al. 2017); gradients pass straight through."""

    def __init__(self, config: Lookup):
        super().__init__()
        self.width_in = self.width_out = config.code_dim
        self.embedding = nn.Embedding(config.codes, config.code_dim)
        self.commitment = config.commitment
        nn.init.uniform_(self.embedding.weight, -1 / config.codes, 1 / config.codes)

    def forward(self, z: Float[Tensor, "B D h w"], temperature: float) -> Quantized:
        z = z.float()
        codes = self.codes(z.detach())
        chosen = self.vectors(codes).transpose(1, 2).unflatten(2, z.shape[2:])  # [B, D, h, w]
        # Equation 3: the codebook moves to the encoder's output, and that a little to the codebook.
        loss = F.mse_loss(chosen, z.detach()) + self.commitment * F.mse_loss(z, chosen.detach())
        return Quantized(z + (chosen - z).detach(), codes, loss, used(codes, self.embedding.num_embeddings))

    def codes(self, z: Float[Tensor, "B D h w"]) -> Int[Tensor, "B N"]:
        flat, table = z.flatten(2).transpose(1, 2), self.embedding.weight  # [B, N, D], [K, D]
        return (table.square().sum(1) - 2 * flat @ table.t()).argmin(-1)  # |z|^2 is the same for all

    def vectors(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        return self.embedding(codes)
