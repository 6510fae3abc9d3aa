"""What a prior reads in training in place of some of the codes, while it must predict the true ones. It knows no
pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import NoiseConfig, TextToImageConfig
from tessera.errors import ConfigError
from tessera.models.text_to_image import TextToImage
from tessera.tokens.image import ImageTokenizer

NEAREST = 6
"""Neighbours of a code, of which one is taken."""
MASKED = -1
"""In the place of a code that is not read."""


class Replaced(nn.Module):
    """In training, a share of codes is replaced by others, each place for itself; what learns reads its own kind of
    mistakes (noisy context, as in reAR, He et al. 2025)."""

    def __init__(self, share: float, other: Callable[[Tensor], Tensor]):
        super().__init__()
        self.share, self.other = share, other

    def forward(self, codes: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
        if not self.training:
            return codes
        return torch.where(torch.rand(codes.shape, device=codes.device) < self.share, self.other(codes), codes)


def prior(config: TextToImageConfig, noise: NoiseConfig, image: ImageTokenizer) -> TextToImage:
    """A fresh prior that reads in training what `noise` asks for."""
    model = TextToImage(config)
    model.read_as = read_as(noise, image)
    return model


def read_as(config: NoiseConfig, image: ImageTokenizer) -> nn.Module:
    """Codes -> what is read in their place."""
    if not config.codes:
        return nn.Identity()
    return Replaced(config.codes, OTHERS[config.by](image))


def _any(image: ImageTokenizer) -> Callable[[Tensor], Tensor]:
    """Any other code, all equally likely."""
    return lambda codes: (codes + torch.randint_like(codes, 1, image.vocab)) % image.vocab


def _near(image: ImageTokenizer) -> Callable[[Tensor], Tensor]:
    """One of the nearest codes, by their vectors."""
    table = neighbours(vectors(image), NEAREST)
    return lambda codes: table.to(codes.device)[codes, torch.randint_like(codes, table.shape[1])]


def _nothing(image: ImageTokenizer) -> Callable[[Tensor], Tensor]:
    """No code at all: a masked place."""
    return lambda codes: torch.full_like(codes, MASKED)


OTHERS = {"any": _any, "near": _near, "nothing": _nothing}
"""The names are those of `noise.by`."""


def neighbours(vectors: Float[Tensor, "K D"], count: int) -> Int[Tensor, "K M"]:
    """The nearest other codes of each code, the nearest first."""
    distances = torch.cdist(vectors, vectors).fill_diagonal_(torch.inf)
    return distances.topk(min(count, len(vectors) - 1), largest=False).indices


def vectors(image: ImageTokenizer) -> Float[Tensor, "K D"]:
    """The vector of every code. Raises ConfigError where the tokenizer's codes have none that say how near they are."""
    quantizer = getattr(getattr(image, "model", None), "quantize", None)
    if quantizer is None or not hasattr(quantizer, "vectors"):
        raise ConfigError("This image tokenizer does not tell which codes are near each other: --noise.by any.")
    with torch.no_grad():
        return quantizer.vectors(torch.arange(image.vocab)[None])[0].float().cpu()
