"""The pyramid, an image tokenizer: pixels <-> a grid of codes. It knows no text, no files and no perceptual loss."""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from tessera.config import PyramidConfig
from tessera.models.autoencoder import Autoencoder, GroupNorm
from tessera.models.quantizers import quantizer


class Block(nn.Module):
    """Norm, SiLU, 3 x 3, twice; added to the input."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.net = nn.Sequential(*convolution(width, width, groups), *convolution(width, width, groups))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


def convolution(wide: int, width: int, groups: int, side: int = 3) -> tuple[nn.Module, ...]:
    """Norm, SiLU, and a convolution that keeps the side of the map."""
    return GroupNorm(groups, wide), nn.SiLU(), nn.Conv2d(wide, width, side, padding=side // 2)


class Pyramid(Autoencoder):
    """The VQGAN's residual blocks (Esser et al. 2021) without attention. Squares of pixels become channels first,
    widths grow downwards, and the decoder is the encoder's mirror, with sub-pixel convolutions (Shi et al. 2016)."""

    config: PyramidConfig

    def __init__(self, config: PyramidConfig):
        super().__init__(config)
        self.quantize = quantizer(config.quantizer)
        self.encoder, self.decoder = self._encoder(config), self._decoder(config)

    def _encoder(self, c: PyramidConfig) -> nn.Sequential:
        first, last, squares = c.widths[0], c.widths[-1], c.channels * c.patch**2
        layers: list[nn.Module] = [nn.PixelUnshuffle(c.patch), nn.Conv2d(squares, first, 3, padding=1)]
        layers += [Block(first, c.groups) for _ in range(c.encoder_blocks)]
        for wide, width in pairwise(c.widths):
            layers.append(nn.Conv2d(wide, width, 3, stride=2, padding=1))
            layers += [Block(width, c.groups) for _ in range(c.encoder_blocks)]
        return nn.Sequential(*layers, *convolution(last, self.quantize.width_in, c.groups, side=1))

    def _decoder(self, c: PyramidConfig) -> nn.Sequential:
        first, last, squares = c.widths[0], c.widths[-1], c.channels * c.patch**2
        layers: list[nn.Module] = [nn.Conv2d(self.quantize.width_out, last, 3, padding=1)]
        layers += [Block(last, c.groups) for _ in range(c.decoder_blocks)]
        for wide, width in pairwise(reversed(c.widths)):
            layers += [nn.Conv2d(wide, 4 * width, 1), nn.PixelShuffle(2)]
            layers += [Block(width, c.groups) for _ in range(c.decoder_blocks)]
        return nn.Sequential(*layers, *convolution(first, squares, c.groups), nn.PixelShuffle(c.patch))

    def latent(self, x: Float[Tensor, "B C S S"]) -> Float[Tensor, "B D h w"]:
        return self.encoder(x)

    def drawn(self, vectors: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C S S"]:
        return self.decoder(vectors)
