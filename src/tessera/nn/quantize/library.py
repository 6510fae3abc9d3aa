"""Quantizers of the package vector-quantize-pytorch, which is imported where one is chosen. It knows no pictures."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import EMA, LFQ, SimVQ, kind_of
from tessera.config.quantizers import Quantizer
from tessera.errors import ConfigError
from tessera.nn.quantize.protocol import Quantized, used


class Library(nn.Module):
    """One of the package's quantizers behind the protocol of this house; in float32, whatever the precision around it.

    A value that is not finite would stay in moving averages, though the loop does not take the step: `inner` reads 0 in
    its place, and the loss says what there was.
    """

    inner: Any

    def __init__(self, config: Quantizer, width: int):
        super().__init__()
        self.width_in = self.width_out = width
        self.vocab = config.vocab

    def forward(self, z: Float[Tensor, "B D h w"], temperature: float) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            vectors, codes, loss = self.inner(z.nan_to_num(posinf=0.0, neginf=0.0))
        codes = codes.long().flatten(1)
        return Quantized(vectors, codes, loss.sum() + 0 * z.sum(), used(codes, self.vocab))

    def codes(self, z: Float[Tensor, "B D h w"]) -> Int[Tensor, "B N"]:
        with torch.autocast(z.device.type, enabled=False):
            return self.inner(z.float())[1].long().flatten(1)

    def vectors(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        return self.inner.indices_to_codes(codes)


class LookupFree(Library):
    """The sign of each channel is a bit of the code (LFQ, Yu et al. 2023)."""

    def __init__(self, config: LFQ):
        super().__init__(config, config.bits)
        self.inner = package(config).LFQ(
            codebook_size=config.vocab,
            entropy_loss_weight=config.entropy_weight,
            diversity_gamma=config.diversity,
            commitment_loss_weight=config.commitment,
        )


class TurnedCodebook(Library):
    """The nearest vector of a fixed codebook that one learned matrix turns (SimVQ, Zhu et al. 2024)."""

    def __init__(self, config: SimVQ):
        super().__init__(config, config.code_dim)
        self.inner = package(config).SimVQ(
            dim=config.code_dim,
            codebook_size=config.codes,
            rotation_trick=config.rotation,
            input_to_quantize_commit_loss_weight=config.commitment,
            channel_first=True,
        )


class MovingAverage(Library):
    """The nearest vector of a codebook that follows moving averages (van den Oord et al. 2017, appendix A)."""

    def __init__(self, config: EMA):
        super().__init__(config, config.code_dim)
        self.inner = package(config).VectorQuantize(
            dim=config.code_dim,
            codebook_size=config.codes,
            decay=config.decay,
            commitment_weight=config.commitment,
            rotation_trick=config.rotation,
            accept_image_fmap=True,
        )

    def codes(self, z: Float[Tensor, "B D h w"]) -> Int[Tensor, "B N"]:
        with torch.autocast(z.device.type, enabled=False):
            return self.inner(z.float(), freeze_codebook=True)[1].long().flatten(1)

    def vectors(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        return self.inner.get_codes_from_indices(codes)


def package(config: Quantizer) -> Any:
    """vector-quantize-pytorch. Raises ConfigError with the line that installs it where it is missing."""
    try:
        import vector_quantize_pytorch
    except ImportError as error:
        raise ConfigError(
            f"The quantizer {kind_of(config)} needs vector-quantize-pytorch: pip install 'tessera[quantizers]'."
        ) from error
    return vector_quantize_pytorch
