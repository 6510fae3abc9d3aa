"""Inception-v3 as the FID uses it (Heusel et al. 2017), under the names of its published weights. It knows no files.

It differs from Szegedy et al. (2015) as TensorFlow's graph of 2015 does: averages over padded places leave the padding
out, the last block pools by maximum, pictures are resized without half-pixel centres, and there are 1,008 classes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SIDE = 299


class Conv(nn.Module):
    """Convolution, normalisation, ReLU. `pad` keeps the size of the map."""

    def __init__(self, before: int, after: int, kernel: int | tuple[int, int], stride: int = 1, pad: bool = True):
        super().__init__()
        high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = (high // 2, wide // 2) if pad else 0
        self.conv = nn.Conv2d(before, after, (high, wide), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


Kernel = int | tuple[int, int]
Step = tuple[str, int, Kernel]
"""A convolution's name, its channels, and its kernel."""
Branch = tuple[Any, ...]
"""Steps one after another; a pair of steps stands where two look at the same map, and their outputs are joined."""


class Mixed(nn.Module):
    """Branches side by side, joined by channels. The last convolution of each halves the map where `stride` is 2, and
    the last branch begins with a pool."""

    def __init__(self, before: int, branches: tuple[Branch, ...], pool: str, stride: int = 1):
        super().__init__()
        self.chains: list[list[list[str]]] = []
        for chain in branches:
            channels, names = before, []
            for place, step in enumerate(chain):
                last = place == len(chain) - 1 and stride == 2
                together: list[Step] = [step] if isinstance(step[0], str) else list(step)
                for name, after, kernel in together:
                    self.add_module(f"branch{name}", Conv(channels, after, kernel, 2 if last else 1, not last))
                names.append([f"branch{name}" for name, *_ in together])
                channels = sum(after for _, after, _ in together)
            self.chains.append(names)
        self.pool = POOLS[pool]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [*(self._through(chain, x) for chain in self.chains[:-1]), self._through(self.chains[-1], self.pool(x))], 1
        )

    def _through(self, chain: list[list[str]], x: Tensor) -> Tensor:
        for names in chain:
            x = torch.cat([self.get_submodule(name)(x) for name in names], 1)
        return x


POOLS = {
    "average": lambda x: F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),
    "maximum": lambda x: F.max_pool2d(x, 3, stride=1, padding=1),
    "halved": lambda x: F.max_pool2d(x, 3, stride=2),
}
"""What the last branch of a block begins with."""


def block_a(before: int, pooled: int) -> Mixed:
    """35 x 35."""
    five = (("5x5_1", 48, 1), ("5x5_2", 64, 5))
    three = (("3x3dbl_1", 64, 1), ("3x3dbl_2", 96, 3), ("3x3dbl_3", 96, 3))
    return Mixed(before, ((("1x1", 64, 1),), five, three, (("_pool", pooled, 1),)), "average")


def block_c(before: int, width: int) -> Mixed:
    """17 x 17, with kernels of 7 in one direction."""
    along, across = (1, 7), (7, 1)
    seven = (("7x7_1", width, 1), ("7x7_2", width, along), ("7x7_3", 192, across))
    double = (
        ("7x7dbl_1", width, 1), ("7x7dbl_2", width, across), ("7x7dbl_3", width, along), ("7x7dbl_4", width, across),
        ("7x7dbl_5", 192, along),
    )  # fmt: skip
    return Mixed(before, ((("1x1", 192, 1),), seven, double, (("_pool", 192, 1),)), "average")


def block_e(before: int, pool: str) -> Mixed:
    """8 x 8."""

    def both(name: str) -> tuple[Step, Step]:
        return (f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))

    three = (("3x3_1", 384, 1), both("3x3_2"))
    double = (("3x3dbl_1", 448, 1), ("3x3dbl_2", 384, 3), both("3x3dbl_3"))
    return Mixed(before, ((("1x1", 320, 1),), three, double, (("_pool", 192, 1),)), pool)


class FIDInception(nn.Module):
    """The whole network, up to the 2,048 channels of which the FID is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2, pad=False)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, pad=False)
        self.Mixed_5b = block_a(192, 32)
        self.Mixed_5c = block_a(256, 64)
        self.Mixed_5d = block_a(288, 64)
        self.Mixed_6a = Mixed(
            288, ((("3x3", 384, 3),), (("3x3dbl_1", 64, 1), ("3x3dbl_2", 96, 3), ("3x3dbl_3", 96, 3)), ()), "halved", 2
        )
        self.Mixed_6b = block_c(768, 128)
        self.Mixed_6c = block_c(768, 160)
        self.Mixed_6d = block_c(768, 160)
        self.Mixed_6e = block_c(768, 192)
        seven = (("7x7x3_1", 192, 1), ("7x7x3_2", 192, (1, 7)), ("7x7x3_3", 192, (7, 1)), ("7x7x3_4", 192, 3))
        self.Mixed_7a = Mixed(768, ((("3x3_1", 192, 1), ("3x3_2", 320, 3)), seven, ()), "halved", 2)
        self.Mixed_7b = block_e(1280, "average")
        self.Mixed_7c = block_e(2048, "maximum")
        self.fc = nn.Linear(2048, 1008)  # in the published file; the FID looks before it

    def forward(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 2048"]:
        """Of pixels in 0 ... 1, which are rounded to the 8 bits that the FID is defined on."""
        x = (as_tensorflow((pixels * 255).round(), SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)  # [B, 192, 35, 35]
        for name, block in self.named_children():
            x = block(x) if name.startswith("Mixed") else x
        return x.mean((2, 3))


def as_tensorflow(pixels: Float[Tensor, "B 3 S S"], side: int) -> Float[Tensor, "B 3 side side"]:
    """Bilinear interpolation as TensorFlow 1 does it: place i of the new picture is place i * S / side of the old."""
    for axis in (2, 3):
        old = pixels.shape[axis]
        place = torch.arange(side, device=pixels.device) * (torch.tensor(old, dtype=torch.float32) / side)
        low = place.long()
        part = (place - low).view(-1, *(1,) * (3 - axis)).to(pixels)
        a, b = pixels.index_select(axis, low), pixels.index_select(axis, (low + 1).clamp(max=old - 1))
        pixels = a + (b - a) * part
    return pixels
