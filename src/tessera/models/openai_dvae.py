"""OpenAI's published discrete VAE, as an image tokenizer. It knows no training: its weights are imported."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class OpenAIDVAEConfig:
    """The dVAE of DALL-E (Ramesh et al. 2021, appendix A.2), of which OpenAI published encoder.pkl and decoder.pkl."""

    pixels: int = 256
    hidden: int = 256
    """Width at the finest resolution; it doubles at each coarser one."""
    start: int = 128
    """Width of the decoder's first convolution."""
    blocks: int = 2
    """Residual blocks at each of the four resolutions."""
    codes: int = 8192
    """How many different codes there are."""

    channels = 3

    @property
    def vocab(self) -> int:
        return self.codes

    @property
    def grid(self) -> int:
        return self.pixels // 8


def conv(wide: int, width: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(wide, width, kernel, padding=kernel // 2)


class ResBlock(nn.Module):
    """Four convolutions through a quarter of the width, scaled down by depth, added to the input."""

    def __init__(self, wide: int, width: int, kernels: tuple[int, ...], gain: float):
        super().__init__()
        inner = width // 4
        sizes = [(wide, inner), (inner, inner), (inner, inner), (inner, width)]
        parts: list[tuple[str, nn.Module]] = []
        for i, (size, kernel) in enumerate(zip(sizes, kernels, strict=True), 1):
            parts += [(f"relu_{i}", nn.ReLU()), (f"conv_{i}", conv(*size, kernel))]
        self.id_path = conv(wide, width, 1) if wide != width else nn.Identity()
        self.res_path = nn.Sequential(OrderedDict(parts))
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.gain * self.res_path(x)


def stack(first: nn.Module, widths: list[int], blocks: int, kernels: tuple[int, ...], between: nn.Module, out: int):
    """first, four groups of residual blocks with `between` after each but the last, ReLU, 1 x 1."""
    groups: list[tuple[str, nn.Module]] = [("input", first)]
    gain = 1 / (4 * blocks) ** 2
    for i in range(4):
        wide, width = widths[i], widths[i + 1]
        parts: list[tuple[str, nn.Module]] = [
            (f"block_{j + 1}", ResBlock(wide if j == 0 else width, width, kernels, gain)) for j in range(blocks)
        ]
        groups.append((f"group_{i + 1}", nn.Sequential(OrderedDict([*parts, *([("next", between)] if i < 3 else [])]))))
    end = nn.Sequential(OrderedDict([("relu", nn.ReLU()), ("conv", conv(widths[4], out, 1))]))
    return nn.Sequential(OrderedDict([*groups, ("output", end)]))


class OpenAIDVAE(nn.Module):
    """Pixels 0 ... 1 <-> codes."""

    def __init__(self, config: OpenAIDVAEConfig):
        super().__init__()
        c = self.config = config
        h = c.hidden
        self.encoder = stack(
            conv(3, h, 7), [h, h, 2 * h, 4 * h, 8 * h], c.blocks, (3, 3, 3, 1), nn.MaxPool2d(2), c.codes
        )
        up = nn.Upsample(scale_factor=2, mode="nearest")
        self.decoder = stack(
            conv(c.codes, c.start, 1), [c.start, 8 * h, 4 * h, 2 * h, h], c.blocks, (1, 3, 3, 3), up, 6
        )

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "B C S S"]) -> Int[Tensor, "B N"]:
        """The code at each place, in reading order; no noise."""
        return self.encoder(0.8 * pixels + 0.1).argmax(1).flatten(1)  # pixels mapped to 0.1 ... 0.9, as it was trained

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B C S S"]:
        """Pixels 0 ... 1. The first convolution of a one-hot plane is a row of its weights."""
        first: nn.Conv2d = self.decoder.input  # type: ignore[assignment]
        assert first.bias is not None
        rows = torch.nn.functional.embedding(codes, first.weight[:, :, 0, 0].t()) + first.bias  # [B, N, start]
        x = rows.transpose(1, 2).unflatten(2, (self.config.grid, self.config.grid))
        for part in list(self.decoder)[1:]:
            x = part(x)
        return ((x[:, :3].sigmoid() - 0.1) / 0.8).clamp(0, 1)
