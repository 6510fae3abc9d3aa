"""How a VQGAN and its relatives choose codes: the nearest vector or direction, the largest product or logit. They know
no pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import Gumbel, Lookup, VQGANConfig
from tessera.nn.quantize.gumbel import divergence
from tessera.nn.quantize.lookup import Nearest
from tessera.nn.quantize.protocol import Quantized, used

SPREAD = 0.2
"""Of each channel of a fresh encoder's output, about."""
KL_WEIGHT = 5e-4
"""Of the divergence of codes that a linear map chooses, for each place, as taming-transformers has it."""


class Reviving(Nearest):
    """The nearest vector; those that a batch does not choose learn too, so that a codebook cannot die.

    Each is drawn to the encoder's output nearest to it: the other half of the Chamfer distance between the codebook and
    what it stands for. Being a loss, it is equal on all ranks and leaves nothing to remember. At the start the vectors
    are spread as the output of a fresh encoder is, so that most of them lie within reach.
    """

    def __init__(self, config: Lookup):
        super().__init__(config)
        nn.init.normal_(self.embedding.weight, std=SPREAD)

    def forward(self, z: Float[Tensor, "B D h w"], temperature: float) -> Quantized:
        made, table = super().forward(z, temperature), self.embedding.weight
        flat = z.detach().float().transpose(0, 1).flatten(1).t()  # [B h w, D]
        nearest = (flat.square().sum(1) - 2 * table.detach() @ flat.t()).argmin(1)  # [K]
        idle = table.new_ones(len(table)).index_fill_(0, made.codes.flatten(), 0.0)
        far = (table - flat[nearest]).square().mean(1)
        return made._replace(loss=made.loss + (idle * far).mean())


class Directions(Nearest):
    """The nearest direction: outputs and vectors count by their unit vectors, and the decoder gets unit vectors
    (ViT-VQGAN, Yu et al. 2021, section 3.2; LlamaGen, Sun et al. 2024)."""

    def forward(self, z: Float[Tensor, "B D h w"], temperature: float) -> Quantized:
        return super().forward(F.normalize(z.float(), dim=1), temperature)

    def codes(self, z: Float[Tensor, "B D h w"]) -> Int[Tensor, "B N"]:
        flat = F.normalize(z, dim=1).flatten(2).transpose(1, 2)  # [B, N, D]
        return (flat @ F.normalize(self.embedding.weight, dim=1).t()).argmax(-1)

    def vectors(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        return F.normalize(super().vectors(codes), dim=-1)


class Products(Nearest):
    """The vector with the largest product. Gradients pass through the probabilities of the choice, so that every vector
    of the codebook learns at every step (IBQ, Shi et al. 2024, section 3.2); its entropy loss is left out."""

    def forward(self, z: Float[Tensor, "B D h w"], temperature: float) -> Quantized:
        flat = z.float().flatten(2).transpose(1, 2)  # [B, N, D]
        table = self.embedding.weight
        likely = (flat @ table.t()).softmax(-1)  # [B, N, K]
        codes = likely.detach().argmax(-1)
        hard = F.one_hot(codes, len(table)).to(likely.dtype)
        chosen = (hard + likely - likely.detach()) @ table
        loss = F.mse_loss(chosen, flat.detach()) + self.commitment * F.mse_loss(flat, chosen.detach())
        return Quantized(chosen.transpose(1, 2).unflatten(2, z.shape[2:]), codes, loss, used(codes, len(table)))

    def codes(self, z: Float[Tensor, "B D h w"]) -> Int[Tensor, "B N"]:
        return (z.flatten(2).transpose(1, 2) @ self.embedding.weight.t()).argmax(-1)


class Likeliest(nn.Module):
    """The code with the largest logit. taming-transformers adds Gumbel noise here even when it does not train, so its
    codes of a picture change at every call; these do not."""

    def __init__(self, c: VQGANConfig):
        super().__init__()
        self.proj = nn.Conv2d(c.code_dim, c.codes, 1)
        self.embed = nn.Embedding(c.codes, c.code_dim)

    def forward(self, z: Float[Tensor, "B D h w"], temperature: float) -> Quantized:
        """With noise, one-hot, and the gradient of the relaxed choice (Jang et al. 2017)."""
        logits = self.proj(z).float()
        choice = F.gumbel_softmax(logits, tau=temperature, dim=1, hard=True)
        vectors = torch.einsum("b k h w, k d -> b d h w", choice, self.embed.weight)
        codes = logits.detach().argmax(1).flatten(1)
        loss = KL_WEIGHT * divergence(logits) / codes.shape[1]
        return Quantized(vectors, codes, loss, used(codes, self.embed.num_embeddings))

    def codes(self, z: Float[Tensor, "B D h w"]) -> Int[Tensor, "B N"]:
        return self.proj(z).argmax(1).flatten(1)

    def vectors(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        return self.embed(codes)


CHOICES = {"nearest": Nearest, "unit": Directions, "product": Products}


def quantizer(c: VQGANConfig) -> nn.Module:
    """By the names of taming-transformers' weights."""
    if isinstance(c.quantizer, Gumbel):
        return Likeliest(c)
    return Reviving(c.quantizer) if c.revive else CHOICES[c.choice](c.quantizer)
