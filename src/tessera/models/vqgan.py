"""The VQGAN of taming-transformers, as an image tokenizer. It knows no training: its weights are imported."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import Lookup
from tessera.nn.quantize.lookup import Nearest


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    """VQGAN (Esser et al. 2021): a convolutional autoencoder with attention, whose codes are the nearest vectors."""

    pixels: int = 256
    """Side of the pictures."""
    width: int = 128
    """Width of the first convolution."""
    widths: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width at each resolution, in multiples of `width`; each after the first halves the side."""
    resblocks: int = 2
    """Residual blocks at each resolution."""
    attention: tuple[int, ...] = (4,)
    """Resolutions, 0 the finest, whose residual blocks are each followed by attention."""
    latent: int = 256
    """Channels between the encoder and the quantizer."""
    code_dim: int = 256
    """Width of a code's vector."""
    codes: int = 1024
    """How many different codes there are."""
    gumbel: bool = False
    """Choose codes by a linear map (GumbelVQ) instead of by distance."""

    channels = 3

    @property
    def vocab(self) -> int:
        return self.codes

    @property
    def grid(self) -> int:
        return self.pixels >> (len(self.widths) - 1)


def norm(width: int) -> nn.Module:
    return nn.GroupNorm(32, width, eps=1e-6)


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


class Likeliest(nn.Module):
    """The code with the largest logit. taming-transformers adds Gumbel noise here even when it does not train, so its
    codes of a picture change at every call; these do not."""

    def __init__(self, c: VQGANConfig):
        super().__init__()
        self.proj = nn.Conv2d(c.code_dim, c.codes, 1)
        self.embed = nn.Embedding(c.codes, c.code_dim)

    def codes(self, z: Float[Tensor, "B D h w"]) -> Int[Tensor, "B N"]:
        return self.proj(z).argmax(1).flatten(1)

    def vectors(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        return self.embed(codes)


class VQGAN(nn.Module):
    """Pixels 0 ... 1 <-> codes. Names are those of taming-transformers, so that its weights fit."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        lookup = Lookup(codes=config.codes, code_dim=config.code_dim)
        self.quantize = Likeliest(config) if config.gumbel else Nearest(lookup)
        self.quant_conv = nn.Conv2d(config.latent, config.code_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.code_dim, config.latent, 1)

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "B C S S"]) -> Int[Tensor, "B N"]:
        """The code at each place, in reading order; no noise."""
        return self.quantize.codes(self.quant_conv(self.encoder(2 * pixels - 1)))

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B C S S"]:
        """Pixels 0 ... 1."""
        side = self.config.grid
        z = self.quantize.vectors(codes).transpose(1, 2).unflatten(2, (side, side))
        return (self.decoder(self.post_quant_conv(z)).clamp(-1, 1) + 1) / 2
