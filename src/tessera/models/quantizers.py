"""The quantizers by name: the house's own of `nn/quantize`, and those of the package vector-quantize-pytorch, which is
imported where one of them is chosen. It knows no pictures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import EMA, LFQ, Quantizer, SimVQ, kind_of
from tessera.errors import ConfigError, install
from tessera.nn.quantize.fsq import FiniteScalar
from tessera.nn.quantize.gumbel import GumbelSoftmax
from tessera.nn.quantize.lookup import Nearest
from tessera.nn.quantize.protocol import Quantized, used


def plain(device: torch.device) -> AbstractContextManager:
    """No automatic precision inside. Tensors without memory have none, and torch refuses to switch it off for them."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


class Library(nn.Module):
    """One of the package's quantizers behind the protocol of this house, in float32 whatever the precision around it.

    A value that is not finite would stay in moving averages, though the loop does not take such a step: `inner` reads 0
    in its place, and the loss says what there was.
    """

    def __init__(self, config: Quantizer, width: int, inner: Any, vectors: Callable[[Tensor], Tensor]):
        super().__init__()
        self.width_in = self.width_out = width
        self.vocab, self.inner, self.vectors = config.vocab, inner, vectors

    def forward(self, z: Float[Tensor, "B D h w"], temperature: float) -> Quantized:
        with plain(z.device):
            flat = z.float().flatten(2).transpose(1, 2)  # [B, N, D]
            vectors, codes, loss = self.inner(flat.nan_to_num(posinf=0.0, neginf=0.0))
        vectors, codes = vectors.transpose(1, 2).unflatten(2, z.shape[2:]), codes.long()
        return Quantized(vectors, codes, loss.sum() + 0 * flat.sum(), used(codes, self.vocab))

    def codes(self, z: Float[Tensor, "B D h w"]) -> Int[Tensor, "B N"]:
        learning = self.inner.training
        self.inner.eval()  # looking moves no average
        with plain(z.device):
            codes = self.inner(z.float().flatten(2).transpose(1, 2))[1].long()
        self.inner.train(learning)
        return codes


def lookup_free(config: LFQ) -> Library:
    """The sign of each channel is a bit of the code (LFQ, Yu et al. 2023)."""
    inner = package(config).LFQ(
        codebook_size=config.vocab,
        entropy_loss_weight=config.entropy_weight,
        diversity_gamma=config.diversity,
        commitment_loss_weight=config.commitment,
    )
    return Library(config, config.bits, inner, inner.indices_to_codes)


def turned_codebook(config: SimVQ) -> Library:
    """The nearest vector of a fixed codebook that one learned matrix turns (SimVQ, Zhu et al. 2024)."""
    inner = package(config).SimVQ(
        dim=config.code_dim,
        codebook_size=config.codes,
        rotation_trick=config.rotation,
        input_to_quantize_commit_loss_weight=config.commitment,
    )
    return Library(config, config.code_dim, inner, inner.indices_to_codes)


def moving_averages(config: EMA) -> Library:
    """The nearest vector of a codebook that follows moving averages (van den Oord et al. 2017, appendix A)."""
    inner = package(config).VectorQuantize(
        dim=config.code_dim,
        codebook_size=config.codes,
        decay=config.decay,
        commitment_weight=config.commitment,
        rotation_trick=config.rotation,
    )
    # The codebook is random from the start. Asking whether it is would read a number, which a plan of memory has not.
    inner._codebook.init_embed_ = lambda data, mask=None: None
    return Library(config, config.code_dim, inner, inner.get_codes_from_indices)


def package(config: Quantizer) -> Any:
    """vector-quantize-pytorch. Raises ConfigError with the line that installs it where it is missing."""
    try:
        import vector_quantize_pytorch
    except ImportError as error:
        raise ConfigError(
            f"The quantizer {kind_of(config)} needs vector-quantize-pytorch: {install('quantizers')}."
        ) from error
    return vector_quantize_pytorch


QUANTIZERS: dict[str, Callable[[Any], Any]] = {
    "fsq": FiniteScalar,
    "gumbel": GumbelSoftmax,
    "lookup": Nearest,
    "lfq": lookup_free,
    "simvq": turned_codebook,
    "ema": moving_averages,
}
"""The names are those of `config.QUANTIZERS`."""


def quantizer(config: Quantizer) -> Any:
    """The module that its settings describe. Raises ConfigError where it needs a package that is not installed."""
    return QUANTIZERS[kind_of(config)](config)
