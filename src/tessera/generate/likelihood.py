"""What a prior says of codes that it is shown. It draws nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tessera.models.any_order import AnyOrder
from tessera.models.text_to_image import TextToImage

LOGITS = 2**24
"""Numbers in the logits of one batch, which are the largest thing here."""


ORDERS = 8
"""Orders in which a prior of any order is asked how likely each code is."""


@torch.inference_mode()
def nats(
    model: TextToImage, tokens: Int[Tensor, "B T"], codes: Int[Tensor, "B N"], *order: Int[Tensor, "B N"]
) -> Float[Tensor, "B N"]:
    """- log p(code | caption, codes before it) at every place, on the CPU. Before it means in reading order, or in the
    one that a prior of any order is given, which lists the places as they are read."""
    rows = max(1, LOGITS // (model.layout.codes * model.config.image_vocab))
    found = []
    device = tokens.device
    for t, c, *own in zip(*(x.to(device).split(rows) for x in (tokens, codes, *order)), strict=True):
        logits = model.image_logits(t, c, *own).float()  # [B, N, K]
        found.append(F.cross_entropy(logits.transpose(1, 2), c, reduction="none").cpu())
    return torch.cat(found)


def gain(model: TextToImage, tokens: Int[Tensor, "B T"], codes: Int[Tensor, "B N"]) -> Float[Tensor, " B"]:
    """By how many nats a caption makes a picture's codes likelier than no caption does: their pointwise mutual
    information, by the model's own lights."""
    return (nats(model, model.null_caption(tokens), codes) - nats(model, tokens, codes)).sum(1)


def surprise(model: TextToImage, tokens: Int[Tensor, "1 T"], codes: Int[Tensor, "1 N"]) -> Float[Tensor, " N"]:
    """How unlikely the model finds each code of a picture, in nats: in reading order, or by some orders of chance where
    it knows any."""
    if not isinstance(model, AnyOrder):
        return nats(model, tokens, codes)[0]
    orders = torch.rand(ORDERS, codes.shape[1], generator=torch.Generator().manual_seed(0)).argsort(1)
    return nats(model, tokens.expand(ORDERS, -1), codes.expand(ORDERS, -1), orders).mean(0)
