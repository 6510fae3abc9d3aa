"""Classifier-free guidance: away from the picture without a caption. It does not know caches or codes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tessera.models.text_to_image import TextToImage


class Guidance:
    """Captions and null captions run as one batch, each row with its own past (Ho & Salimans 2022).

    rows      caption 0 | caption 1 | null 0 | null 1        2 B rows are read
    repeat    codes 0   | codes 1   | codes 0 | codes 1      both halves read the same codes
    combine   null + scale * (caption - null)                B rows of logits
    """

    def __init__(self, model: TextToImage, scale: float):
        self.model, self.scale = model, scale

    def rows(self, tokens: Int[Tensor, "B T"]) -> Int[Tensor, "R T"]:
        return torch.cat((tokens, self.model.null_caption(tokens)))

    def repeat(self, codes: Int[Tensor, "B n"]) -> Int[Tensor, "R n"]:
        return codes.repeat(2, 1)

    def combine(self, logits: Float[Tensor, "R n K"]) -> Float[Tensor, "B n K"]:
        caption, null = logits.chunk(2)
        return null + self.scale * (caption - null)


class NoGuidance:
    """Captions alone.

    rows      caption 0 | caption 1
    repeat    codes 0   | codes 1
    combine   caption
    """

    def rows(self, tokens: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        return tokens

    def repeat(self, codes: Int[Tensor, "B n"]) -> Int[Tensor, "B n"]:
        return codes

    def combine(self, logits: Float[Tensor, "B n K"]) -> Float[Tensor, "B n K"]:
        return logits


def guidance(model: TextToImage, scale: float) -> Guidance | NoGuidance:
    return NoGuidance() if scale == 1 else Guidance(model, scale)
