"""The VQGAN of taming-transformers, an image tokenizer: pixels <-> a grid of codes. It knows no adversary, no text and
no files."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import Gumbel, Lookup, VQGANConfig
from tessera.models.autoencoder import Autoencoder, GroupNorm
from tessera.nn.quantize.gumbel import divergence
from tessera.nn.quantize.lookup import Nearest
from tessera.nn.quantize.protocol import Quantized, used

SPREAD = 0.2
"""Of each channel of a fresh encoder's output, about."""
KL_WEIGHT = 5e-4
"""Of the divergence of codes that a linear map chooses, for each place, as taming-transformers has it."""


def norm(width: int) -> nn.Module:
    return GroupNorm(VQGANConfig.groups, width, eps=1e-6)


class ResBlock(nn.Module):
    """norm, SiLU, 3 x 3, twice; added to the input."""

    def __init__(self, wide: int, width: int):
        super().__init__()
        self.norm1, self.conv1 = norm(wide), nn.Conv2d(wide, width, 3, padding=1)
        self.norm2, self.conv2 = norm(width), nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(wide, width, 1) if wide != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class PlaneAttention(nn.Module):
    """Every place attends to every other; one head."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (f(y).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))  # [B, h w, D]
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.proj_out(seen)


class Level(nn.Module):
    """The blocks of one resolution; `downsample` or `upsample` leads to the next."""

    def __init__(self, wide: int, width: int, blocks: int, attends: bool):
        super().__init__()
        self.block = nn.ModuleList([ResBlock(wide if i == 0 else width, width) for i in range(blocks)])
        self.attn = nn.ModuleList([PlaneAttention(width) for _ in range(blocks if attends else 0)])
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        return self.upsample(self.downsample(x))


class Down(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # only on the right and below, as in taming-transformers


class Up(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = ResBlock(width, width), PlaneAttention(width), ResBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    def __init__(self, c: VQGANConfig):
        super().__init__()
        widths = [c.width, *(c.width * m for m in c.widths)]
        self.conv_in = nn.Conv2d(c.channels, c.width, 3, padding=1)
        self.down = nn.ModuleList(
            [Level(a, b, c.resblocks, i in c.attention) for i, (a, b) in enumerate(pairwise(widths))]
        )
        for level, width in zip(list(self.down)[:-1], widths[1:-1], strict=True):
            level.downsample = Down(width)
        self.mid = Middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], c.latent, 3, padding=1)

    def forward(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B Z h w"]:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, c: VQGANConfig):
        super().__init__()
        widths = [*(c.width * m for m in c.widths), c.width * c.widths[-1]]  # each level takes the coarser one's
        self.conv_in = nn.Conv2d(c.latent, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            [Level(b, a, c.resblocks + 1, i in c.attention) for i, (a, b) in enumerate(pairwise(widths))]
        )
        for level, width in zip(list(self.up)[1:], widths[1:-1], strict=True):
            level.upsample = Up(width)
        self.norm_out = norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], c.channels, 3, padding=1)

    def forward(self, z: Float[Tensor, "B Z h w"]) -> Float[Tensor, "B 3 S S"]:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


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


def quantizer(c: VQGANConfig) -> nn.Module:
    """By the names of taming-transformers' weights."""
    if isinstance(c.quantizer, Gumbel):
        return Likeliest(c)
    return Reviving(c.quantizer) if c.revive else Nearest(c.quantizer)


class VQGAN(Autoencoder):
    """Names are those of taming-transformers, so that its weights fit."""

    config: VQGANConfig

    def __init__(self, config: VQGANConfig):
        super().__init__(config)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantize = quantizer(config)
        self.quant_conv = nn.Conv2d(config.latent, config.code_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.code_dim, config.latent, 1)

    def latent(self, x: Float[Tensor, "B C S S"]) -> Float[Tensor, "B D h w"]:
        return self.quant_conv(self.encoder(x))

    def drawn(self, vectors: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C S S"]:
        return self.decoder(self.post_quant_conv(vectors))
