"""A relaxed choice from a codebook. It knows no pictures."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import Gumbel
from tessera.nn.quantize.protocol import Quantized, used


class GumbelSoftmax(nn.Module):
    """A relaxed one-hot choice among `codes` vectors (Jang et al. 2017; Maddison et al. 2017).

    The encoder gives logits. `straight_through` makes the choice one-hot in the forward pass; `reinmax` then corrects
    its gradient to second order (Liu et al. 2023, algorithm 2).
    """

    def __init__(self, config: Gumbel):
        super().__init__()
        self.width_in, self.width_out = config.codes, config.code_dim
        self.codebook = nn.Embedding(config.codes, config.code_dim)
        self.straight_through, self.reinmax = config.straight_through, config.reinmax
        self.kl_weight = config.kl_weight

    def forward(self, logits: Float[Tensor, "B K h w"], temperature: float) -> Quantized:
        logits = logits.float()
        choice = F.gumbel_softmax(logits, tau=temperature, dim=1, hard=self.straight_through)
        if self.reinmax:
            choice = reinmax(logits, choice, temperature)
        vectors = torch.einsum("b k h w, k d -> b d h w", choice, self.codebook.weight)
        codes = self.codes(logits.detach())
        return Quantized(vectors, codes, self.kl_weight * divergence(logits), used(codes, self.width_in))

    def codes(self, logits: Float[Tensor, "B K h w"]) -> Int[Tensor, "B N"]:
        return logits.argmax(1).flatten(1)

    def vectors(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        return self.codebook(codes)


def reinmax(logits: Tensor, choice: Tensor, temperature: float) -> Tensor:
    """The one-hot `choice` with ReinMax's gradient."""
    choice = choice.detach()
    pi0 = logits.softmax(1)
    pi1 = (choice + (logits / temperature).softmax(1)) / 2
    pi1 = ((pi1.log() - logits).detach() + logits).softmax(1)
    pi2 = 2 * pi1 - 0.5 * pi0
    return pi2 - pi2.detach() + choice


def divergence(logits: Float[Tensor, "B K h w"]) -> Float[Tensor, ""]:
    """KL(codes of a picture || uniform), summed over places, averaged over the batch."""
    logq = logits.log_softmax(1)
    return (logq.exp() * (logq + math.log(logits.shape[1]))).sum((1, 2, 3)).mean()
