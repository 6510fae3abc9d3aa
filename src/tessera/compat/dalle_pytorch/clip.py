"""DALLE-pytorch's CLIP as a face of this house's judge."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tessera.compat.dalle_pytorch.face import Face, Seat, seats_of, widen_scales
from tessera.imports.dalle_pytorch.names import clip_names
from tessera.imports.dalle_pytorch.options import CLIP_OPTIONS, clip_config
from tessera.models import clip as house_clip


class CLIP(Face):
    """Scores of pictures against texts, or the training loss."""

    def __init__(self, *, dim_text: int = 512, dim_image: int = 512, dim_latent: int = 512,
                 num_text_tokens: int = 10000, text_enc_depth: int = 6, text_seq_len: int = 256, text_heads: int = 8,
                 num_visual_tokens: int = 512, visual_enc_depth: int = 6, visual_heads: int = 8,
                 visual_image_size: int = 256, visual_patch_size: int = 32, channels: int = 3):  # fmt: skip
        super().__init__()
        given = {k: v for k, v in locals().items() if k in CLIP_OPTIONS}
        self.model = house_clip.CLIP(clip_config(given))
        widen_scales(self.model)
        self.model.temperature = nn.Parameter(self.model.temperature.detach()[0])

    def seats(self) -> list[Seat]:
        return seats_of(self.model, clip_names(self.model))

    def forward(
        self, text: Tensor, image: Tensor, text_mask: Tensor | None = None, return_loss: bool = False
    ) -> Tensor:
        """[b] scores, or the symmetric cross entropy. Without a mask padding counts, as in the original."""
        mask = torch.ones_like(text, dtype=torch.bool) if text_mask is None else text_mask
        texts, images = self.model.read(text, mask), self.model.look(image)
        if return_loss:
            return self.model.loss(texts, images).total
        return (texts * images).sum(-1) * self.model.temperature.exp()
