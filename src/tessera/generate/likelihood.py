"""What a prior says of codes that it is shown. It draws nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tessera.models.text_to_image import TextToImage

LOGITS = 2**24
"""Numbers in the logits of one batch, which are the largest thing here."""


@torch.inference_mode()
def nats(model: TextToImage, tokens: Int[Tensor, "B T"], codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """- log p(code | caption, codes before it) at every place, on the CPU."""
    rows = max(1, LOGITS // (model.layout.codes * model.config.image_vocab))
    found = []
    for t, c in zip(tokens.split(rows), codes.to(tokens.device).split(rows), strict=True):
        logits = model.image_logits(t, c[:, :-1]).float()  # [B, N, K]
        found.append(F.cross_entropy(logits.transpose(1, 2), c, reduction="none").cpu())
    return torch.cat(found)


def gain(model: TextToImage, tokens: Int[Tensor, "B T"], codes: Int[Tensor, "B N"]) -> Float[Tensor, " B"]:
    """By how many nats a caption makes a picture's codes likelier than no caption does: their pointwise mutual
    information, by the model's own lights."""
    return (nats(model, model.null_caption(tokens), codes) - nats(model, tokens, codes)).sum(1)
