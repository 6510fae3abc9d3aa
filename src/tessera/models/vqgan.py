"""The VQGAN of taming-transformers and its relatives, image tokenizers: pixels <-> a grid of codes. They know no
adversary, no text and no files."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tessera.config import VQGANConfig
from tessera.models.autoencoder import Autoencoder, GroupNorm
from tessera.models.vqgan_codes import quantizer


def norm(width: int, groups: int) -> nn.Module:
    return GroupNorm(groups, width, eps=1e-6)


class ResBlock(nn.Module):
    """norm, SiLU, 3 x 3, twice; added to the input."""

    def __init__(self, wide: int, width: int, groups: int):
        super().__init__()
        self.norm1, self.conv1 = norm(wide, groups), nn.Conv2d(wide, width, 3, padding=1)
        self.norm2, self.conv2 = norm(width, groups), nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(wide, width, 1) if wide != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class PlaneAttention(nn.Module):
    """Every place attends to every other; one head."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.norm = norm(width, groups)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (f(y).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))  # [B, h w, D]
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.proj_out(seen)


class Level(nn.Module):
    """The blocks of one resolution; `downsample` or `upsample` leads to the next."""

    def __init__(self, wide: int, width: int, blocks: int, attends: bool, groups: int):
        super().__init__()
        self.block = nn.ModuleList([ResBlock(wide if i == 0 else width, width, groups) for i in range(blocks)])
        self.attn = nn.ModuleList([PlaneAttention(width, groups) for _ in range(blocks if attends else 0)])
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
    def __init__(self, width: int, attends: bool, groups: int):
        super().__init__()
        self.block_1, self.block_2 = (ResBlock(width, width, groups) for _ in range(2))
        self.attn_1 = PlaneAttention(width, groups) if attends else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    def __init__(self, c: VQGANConfig):
        super().__init__()
        widths = [c.width, *c.each_width]
        self.conv_in = nn.Conv2d(c.channels, c.width, 3, padding=1)
        self.down = nn.ModuleList(
            [Level(a, b, c.resblocks, i in c.attention, c.groups) for i, (a, b) in enumerate(pairwise(widths))]
        )
        for level, width in zip(list(self.down)[:-1], widths[1:-1], strict=True):
            level.downsample = Down(width)
        self.mid = Middle(widths[-1], c.middle_attention, c.groups)
        self.norm_out = norm(widths[-1], c.groups)
        self.conv_out = nn.Conv2d(widths[-1], c.latent, 3, padding=1)

    def forward(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B Z h w"]:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, c: VQGANConfig):
        super().__init__()
        widths = [*c.each_width, c.each_width[-1]]  # each level takes the coarser one's
        self.conv_in = nn.Conv2d(c.latent, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], c.middle_attention, c.groups)
        self.up = nn.ModuleList(
            [Level(b, a, c.resblocks + 1, i in c.attention, c.groups) for i, (a, b) in enumerate(pairwise(widths))]
        )
        for level, width in zip(list(self.up)[1:], widths[1:-1], strict=True):
            level.upsample = Up(width)
        self.norm_out = norm(widths[0], c.groups)
        self.conv_out = nn.Conv2d(widths[0], c.channels, 3, padding=1)

    def forward(self, z: Float[Tensor, "B Z h w"]) -> Float[Tensor, "B 3 S S"]:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VQGAN(Autoencoder):
    """Names are those of taming-transformers, so that its weights fit."""

    config: VQGANConfig

    def __init__(self, config: VQGANConfig):
        super().__init__(config)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantize = quantizer(config)
        self.quant_conv = nn.Conv2d(config.latent, config.code_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.code_dim, config.latent, 1)
        self.scale, self.shift = (0.5, 0.5) if config.from_zero else (1.0, 0.0)  # from -1 ... 1 to the network's pixels

    def latent(self, x: Float[Tensor, "B C S S"]) -> Float[Tensor, "B D h w"]:
        return self.quant_conv(self.encoder(x * self.scale + self.shift))

    def drawn(self, vectors: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C S S"]:
        return (self.decoder(self.post_quant_conv(vectors)) - self.shift) / self.scale
