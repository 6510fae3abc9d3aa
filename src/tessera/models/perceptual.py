"""How different two pictures look to a frozen network. It knows no files: who has the network hands it over."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tessera.config.perceptual import Lite0


def in_colour(pixels: Float[Tensor, "B C S S"]) -> Float[Tensor, "B 3 S S"]:
    """Three channels of pictures with 1 to 4: gray is repeated, transparency laid on white, as `data.pictures` does."""
    colours, alpha = (pixels[:, :-1], pixels[:, -1:]) if pixels.shape[1] in (2, 4) else (pixels, None)
    if alpha is not None:
        colours = colours * alpha + 1 - alpha
    return colours.expand(-1, 3, -1, -1)


class Folded(nn.Module):
    """A frozen convolution with its batch norm in its weights, and TensorFlow's padding for any side."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, activation: nn.Module):
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        self.register_buffer("weight", (conv.weight * scale[:, None, None, None]).detach().clone())
        self.register_buffer("bias", (norm.bias - norm.running_mean * scale).detach().clone())
        self.side, self.stride, self.groups = conv.kernel_size[0], conv.stride[0], conv.groups
        self.activation = activation

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D k l"]:
        if self.stride == 1:
            return self.activation(F.conv2d(x, self.weight, self.bias, 1, self.side // 2, 1, self.groups))
        x = F.pad(x, [*self._around(x.shape[-1]), *self._around(x.shape[-2])])
        with torch.autocast(x.device.type, enabled=False):  # in bf16 its gradient takes 4 to 20 times as long on a CPU
            return self.activation(F.conv2d(x.float(), self.weight, self.bias, self.stride, 0, 1, self.groups))

    def _around(self, length: int) -> tuple[int, int]:
        """Padding before and after: what the last step of the stride lacks, the odd one after."""
        lacks = max((-(-length // self.stride) - 1) * self.stride + self.side - length, 0)
        return lacks // 2, lacks - lacks // 2


class FoldedBlock(nn.Module):
    """An inverted residual block (Sandler et al. 2018) of an EfficientNet-Lite."""

    def __init__(self, block: Any):
        super().__init__()
        widen = [Folded(block._expand_conv, block._bn0, nn.ReLU6())] if hasattr(block, "_expand_conv") else []
        self.net = nn.Sequential(
            *widen,
            Folded(block._depthwise_conv, block._bn1, nn.ReLU6()),
            Folded(block._project_conv, block._bn2, nn.Identity()),
        )
        of = block._block_args
        self.width: int = of.output_filters
        self.skip = block._depthwise_conv.stride[0] == 1 and of.input_filters == of.output_filters

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + x if self.skip else self.net(x)


class Looked(NamedTuple):
    """What a network made of reconstructions and their pictures."""

    distance: Float[Tensor, ""]
    """The weighted distance of both."""
    found: list[Tensor]
    wanted: list[Tensor]
    """Unit vectors [B, C, h, w] of each tap, of the reconstructions and of the pictures."""


class LooksLike(nn.Module):
    """How different pictures look to EfficientNet-Lite0: LPIPS (Zhang et al. 2018) without learned weights, on the
    network of Projected GAN (Sauer et al. 2021), and the same of its pooled head.

    Frozen, in eval mode, and no part of any model: gradients pass through it to the pictures alone.
    """

    def __init__(self, config: Lite0, network: Any):
        super().__init__()
        self.config = config
        last = len(network._blocks) if config.deep else max(config.taps) + 1
        self.stem = Folded(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = nn.ModuleList([FoldedBlock(block) for block in network._blocks[:last]])
        self.head = Folded(network._conv_head, network._bn1, nn.ReLU6())
        self.requires_grad_(False).eval()

    def forward(self, again: Float[Tensor, "B C S S"], pixels: Float[Tensor, "B C S S"]) -> Looked:
        """Reconstructions beside their pictures in 0 ... 1, both moved by the same chance."""
        most = min(self.config.shift, pixels.shape[-1] - 1)
        return self.looked(again, pixels, *torch.randint(-most, most + 1, (2,)).tolist())

    def looked(self, again: Tensor, pixels: Tensor, down: int = 0, right: int = 0) -> Looked:
        """Both, moved by so many pixels."""
        with torch.no_grad():
            wanted = self.seen(self._prepared(pixels, down, right))
        found = self.seen(self._prepared(again, down, right))
        weights = [self.config.weight] * len(self.config.taps) + [self.config.deep]
        both = zip(weights, found, wanted, strict=False)  # without a deep weight there is no pooled head
        distance = torch.stack([w * (a - b).square().sum(1).mean() for w, a, b in both]).sum()
        taps = len(self.config.taps)
        return Looked(distance, found[:taps], wanted[:taps])

    def seen(self, pixels: Float[Tensor, "B 3 S S"]) -> list[Tensor]:
        """Unit vectors: [B, C, h, w] of each tap, and [B, 1280] of the pooled head where that has a weight."""
        x, found = self.stem(pixels), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.config.taps:
                found.append(F.normalize(x.float(), dim=1))
        if self.config.deep:
            found.append(F.normalize(self.head(x).float().mean((2, 3)), dim=1))
        return found

    @property
    def widths(self) -> list[int]:
        """Channels of each tap."""
        return [self.blocks[i].width for i in self.config.taps]  # type: ignore[misc]

    def _prepared(self, pixels: Tensor, down: int, right: int) -> Tensor:
        """Pixels as Lite0 wants them: in colour, moved with their edges mirrored, enlarged."""
        x = (255 * in_colour(pixels) - 127) / 128
        if most := max(abs(down), abs(right)):
            x = F.pad(x, [most] * 4, "reflect")[..., most + down :, most + right :]
            x = x[..., : pixels.shape[-2], : pixels.shape[-1]]
        if self.config.enlarge > 1:
            x = F.interpolate(x, scale_factor=self.config.enlarge, mode="bilinear", align_corners=False)
        return x.contiguous(memory_format=torch.channels_last)
