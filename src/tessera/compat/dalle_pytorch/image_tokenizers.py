"""DALLE-pytorch's image tokenizers as faces of this house's: num_tokens, image_size, num_layers, channels,
get_codebook_indices, decode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tessera.compat.dalle_pytorch.face import Face, Seat, seats_of
from tessera.errors import DataError
from tessera.imports import pretrained
from tessera.imports.dalle_pytorch.names import dvae_names, openai_name
from tessera.imports.dalle_pytorch.options import DVAE_OPTIONS, dvae_config
from tessera.models import dvae as house_dvae
from tessera.models.openai_dvae import OpenAIDVAE
from tessera.models.vqgan import VQGAN

Normalization = tuple[Sequence[float], Sequence[float]]
"""(mean, deviation) of each channel."""


class DiscreteVAE(Face):
    """The discrete VAE. `decode` and reconstructions give normalised pixels, as in the original; `tessera.load` and the
    command line give 0 ... 1."""

    def __init__(self, image_size: int = 256, num_tokens: int = 512, codebook_dim: int = 512, num_layers: int = 3,
                 num_resnet_blocks: int = 0, hidden_dim: int = 64, channels: int = 3, smooth_l1_loss: bool = False,
                 temperature: float = 0.9, straight_through: bool = False, reinmax: bool = False,
                 kl_div_loss_weight: float = 0.0,
                 normalization: Normalization | None = DVAE_OPTIONS["normalization"]):  # fmt: skip
        super().__init__()
        given = {k: v for k, v in locals().items() if k in DVAE_OPTIONS}
        self.options = given
        self.model = house_dvae.DiscreteVAE(dvae_config(given))
        self.image_size, self.num_tokens, self.num_layers, self.channels = image_size, num_tokens, num_layers, channels
        self.temperature = temperature

    def seats(self) -> list[Seat]:
        return seats_of(self.model, dvae_names(self.model))

    @property
    def encoder(self) -> nn.Module:
        return self.model.encoder

    @property
    def decoder(self) -> nn.Module:
        return self.model.decoder

    @property
    def codebook(self) -> nn.Module:
        return self.model.quantize.codebook  # type: ignore[return-value]

    def norm(self, images: Tensor) -> Tensor:
        return self.model.normalised(images)

    @torch.no_grad()
    def get_codebook_indices(self, images: Tensor) -> Tensor:
        return self.model.encode(images)

    def decode(self, img_seq: Tensor) -> Tensor:
        return self.model.decoded(img_seq)

    def forward(self, img: Tensor, return_loss: bool = False, return_recons: bool = False,
                return_logits: bool = False, temp: float | None = None) -> Any:  # fmt: skip
        if img.shape[-1] != self.image_size or img.shape[-2] != self.image_size:
            raise DataError(f"The pictures are {img.shape[-1]} x {img.shape[-2]}, this VAE takes {self.image_size}.")
        if return_logits:
            return self.model.encoder(self.norm(img))
        again, parts = self.model.relaxed(img, self.temperature if temp is None else temp)
        if not return_loss:
            return again
        # The original sums the KL term over the batch instead of averaging it.
        loss = parts.reconstruction + parts.quantizer * len(img)
        return (loss, again) if return_recons else loss


class _Pretrained(Face):
    """A published tokenizer; `network` is our model of it."""

    network: VQGAN | OpenAIDVAE
    spelling: Callable[[str], str]
    channels, image_size = 3, 256

    def seats(self) -> list[Seat]:
        return [(self.spelling(name), value, ()) for name, value in self.network.named_parameters()]

    @property
    def num_tokens(self) -> int:
        return self.network.config.codes

    @torch.no_grad()
    def get_codebook_indices(self, img: Tensor) -> Tensor:
        return self.network.encode(img)

    def decode(self, img_seq: Tensor) -> Tensor:
        return self.network.decode(img_seq)

    def forward(self, img: Tensor) -> Tensor:
        raise NotImplementedError("Tessera does not train a pretrained tokenizer. Call get_codebook_indices or decode.")


class VQGanVAE(_Pretrained):
    """taming-transformers' VQGAN. Without paths it downloads the ImageNet f16 model with 1,024 codes."""

    network: VQGAN

    def __init__(self, vqgan_model_path: str | None = None, vqgan_config_path: str | None = None):
        super().__init__()
        if vqgan_model_path is None:
            self.network = pretrained.published("vqgan-imagenet-f16-1024")  # type: ignore[assignment]
        else:
            yaml = Path(vqgan_config_path) if vqgan_config_path else None
            self.network = pretrained.vqgan(Path(vqgan_model_path), yaml)
        self.network.requires_grad_(False)
        self.num_layers = len(self.network.config.each_width) - 1
        self.is_gumbel = self.network.config.gumbel

    def spelling(self, name: str) -> str:
        return f"model.{name}"


class OpenAIDiscreteVAE(_Pretrained):
    """OpenAI's dVAE. Without paths it downloads encoder.pkl and decoder.pkl. Their code is never run."""

    num_layers = 3

    def __init__(self, encoder_path: str | None = None, decoder_path: str | None = None):
        super().__init__()
        if encoder_path is None or decoder_path is None:
            self.network = pretrained.published("openai-dvae")
        else:
            self.network = pretrained.openai_dvae(Path(encoder_path), Path(decoder_path))
        self.network.requires_grad_(False)

    def spelling(self, name: str) -> str:
        return openai_name(name)


VAE = DiscreteVAE | OpenAIDiscreteVAE | VQGanVAE
