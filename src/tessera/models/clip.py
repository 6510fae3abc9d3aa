"""CLIP: how well a picture fits a sentence. It knows no files and draws nothing."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tessera.config import CLIPConfig, TransformerConfig
from tessera.nn.cache import Nothing, Sight
from tessera.nn.geometry import Layout
from tessera.nn.stack import Transformer


class CLIPLoss(NamedTuple):
    """The symmetric cross entropy in nats, and the share of pictures whose own caption scores highest."""

    total: Tensor
    accuracy: Tensor


class Readable(Nothing):
    """The memory of an encoder, which reads a whole sequence at once: the mask [B, T] says which positions count."""

    def __init__(self, mask: Tensor):
        super().__init__(mask.shape[1])
        self.mask = mask[:, None, None]  # [B, 1, 1, T]

    def attend(self, sight: Sight, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, self.mask)


class CLIP(nn.Module):
    """A text and a picture encoder whose outputs lie near each other for pairs (Radford et al. 2021).

    The architecture is DALLE-pytorch's CLIP, so that its weights fit: transformers that see everything, mean pooling.
    """

    splits = False
    """Whether a batch may be cut into micro-batches: here each picture is told from all others in its batch."""

    @staticmethod
    def inputs(config: CLIPConfig, rows: int) -> tuple[Tensor, Tensor]:
        """What training calls it with, all zero."""
        tokens = torch.zeros(rows, config.text_len, dtype=torch.long)
        return tokens, torch.zeros(rows, config.channels, config.pixels, config.pixels)

    def __init__(self, config: CLIPConfig):
        super().__init__()
        assert min(config.text_vocab, config.text_len) > 0, "resolve the config first"
        c = self.config = config
        self.text_embedding = nn.Embedding(c.text_vocab, c.dim_text)
        self.text_position = nn.Embedding(c.text_len, c.dim_text)
        self.text = Transformer(_encoder(c, c.dim_text, c.text_depth, c.text_heads), Layout(text=c.text_len, grid=0))
        self.text_latent = nn.Linear(c.dim_text, c.dim_latent, bias=False)
        places = (c.pixels // c.patch) ** 2
        self.patch_embedding = nn.Linear(c.channels * c.patch**2, c.dim_image)
        self.patch_position = nn.Embedding(places, c.dim_image)
        self.image = Transformer(_encoder(c, c.dim_image, c.image_depth, c.image_heads), Layout(text=places, grid=0))
        self.image_latent = nn.Linear(c.dim_image, c.dim_latent, bias=False)
        self.temperature = nn.Parameter(torch.ones(1))  # not a scalar, which cannot be cut up over ranks

    def forward(self, tokens: Int[Tensor, "B T"], pixels: Float[Tensor, "B C S S"]) -> CLIPLoss:
        """The training loss; padding ids, which lie beyond the vocabulary, are not read."""
        return self.loss(self.read(tokens, tokens < self.config.text_vocab), self.look(pixels))

    def loss(self, texts: Float[Tensor, "B D"], images: Float[Tensor, "B D"]) -> CLIPLoss:
        logits = texts @ images.t() * self.temperature.exp()
        own = torch.arange(len(logits), device=logits.device)
        accuracy = (logits.argmax(0) == own).float().mean()
        return CLIPLoss((F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own)) / 2, accuracy)

    def scores(self, tokens: Int[Tensor, "B T"], pixels: Float[Tensor, "B C S S"]) -> Float[Tensor, " B"]:
        """Cosine similarity of each caption and its picture, times exp(temperature)."""
        texts = self.read(tokens, tokens < self.config.text_vocab)
        return (texts * self.look(pixels)).sum(-1) * self.temperature.exp()

    def read(self, tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """Unit vectors of captions; tokens outside the mask are neither seen nor averaged."""
        x = self.text_embedding(tokens.masked_fill(tokens >= self.config.text_vocab, 0)) + self.text_position.weight
        x = self.text(x, Readable(mask)) * mask[..., None]
        return F.normalize(self.text_latent(x.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)), dim=-1)

    def look(self, pixels: Float[Tensor, "B C S S"]) -> Float[Tensor, "B D"]:
        """Unit vectors of pictures with values 0 ... 1."""
        p = self.config.patch
        patches = pixels.unfold(2, p, p).unfold(3, p, p)  # [B, C, h, w, p, p]
        x = (
            self.patch_embedding(patches.permute(0, 2, 3, 4, 5, 1).flatten(1, 2).flatten(2))
            + self.patch_position.weight
        )
        everything = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return F.normalize(self.image_latent(self.image(x, Readable(everything)).mean(1)), dim=-1)


def _encoder(c: CLIPConfig, dim: int, depth: int, heads: int) -> TransformerConfig:
    return TransformerConfig(
        dim=dim, depth=depth, heads=heads, head_dim=c.head_dim, patterns=("all",), positions="none", norm="layer",
        qk_norm=False, ff="geglu", ff_mult=4.0, bias=True, layer_scale=True, zero_init=False,
    )  # fmt: skip
