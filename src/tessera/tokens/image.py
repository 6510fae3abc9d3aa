"""A frozen image tokenizer, as the prior and the pipeline use it: pixels <-> codes. It knows no training."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tessera.config import AutoencoderConfig, DVAEConfig, PyramidConfig, VQGANConfig
from tessera.errors import CheckpointError
from tessera.models import saved
from tessera.models.dvae import DiscreteVAE
from tessera.models.openai_dvae import OpenAIDVAE, OpenAIDVAEConfig
from tessera.models.pyramid import Pyramid
from tessera.models.vqgan import VQGAN

NETWORKS = (DiscreteVAE, Pyramid, VQGAN, OpenAIDVAE)
"""The networks that are image tokenizers."""


class ImageTokenizer(Protocol):
    """Pictures with values 0 ... 1 become a square grid of codes 0 ... vocab - 1, and back."""

    config: DVAEConfig | PyramidConfig | VQGANConfig | OpenAIDVAEConfig
    vocab: int
    grid: int
    pixels: int
    channels: int

    def encode(self, pixels: Float[Tensor, "B C S S"]) -> Int[Tensor, "B N"]: ...
    def decode(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B C S S"]: ...
    def fingerprint(self) -> str: ...
    def to(self, device: torch.device) -> None: ...
    def save(self, folder: Path) -> None: ...


class Frozen:
    """A network with `encode` and `decode` as a tokenizer. It may be used on a network that is still in training."""

    def __init__(self, model: DiscreteVAE | Pyramid | VQGAN | OpenAIDVAE):
        self.model, self.config = model, model.config
        c = model.config
        self.vocab, self.grid, self.pixels, self.channels = c.vocab, c.grid, c.pixels, c.channels

    def encode(self, pixels: Tensor) -> Tensor:
        device = next(self.model.parameters()).device
        return self.model.encode(pixels.to(device, memory_format=torch.channels_last))

    def decode(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes)

    def fingerprint(self) -> str:
        """Equal for equal weights."""
        digest = hashlib.blake2b(digest_size=12)
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device) -> None:
        self.model.to(device)

    def save(self, folder: Path) -> None:
        saved.write(folder, self.model)


def load(folder: Path) -> Frozen:
    """The image tokenizer in a folder. Raises CheckpointError if there is none."""
    model = saved.read(folder)
    if not isinstance(model, NETWORKS):
        raise CheckpointError(f"{folder} holds a {type(model).__name__}, which is not an image tokenizer.")
    # Convolutions run a third faster with channels last; other weights are left alone by it.
    return Frozen(model.requires_grad_(False).to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def helpers(tokenizer: ImageTokenizer) -> tuple[str, ...]:
    """The networks that helped to train it, by the names that `evaluate` gives them; they must not judge it."""
    return tokenizer.config.perceptual.networks if isinstance(tokenizer.config, AutoencoderConfig) else ()
