"""What every quantizer gives. It knows no pictures."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Quantized(NamedTuple):
    """What becomes of an encoder's output in training."""

    vectors: Tensor
    """[B, D, h, w]: what the decoder reads; gradients pass through it to the encoder."""
    codes: Tensor
    """[B, N], in reading order."""
    loss: Tensor
    """[]: what the quantizer itself asks to be minimised, weighted."""
    usage: Tensor
    """[]: how many different codes there are among `codes`."""


class Quantizer(Protocol):
    """Encoder output [B, width_in, h, w] -> codes [B, N], and codes -> vectors of width_out."""

    width_in: int
    width_out: int

    def __call__(self, z: Float[Tensor, "B D h w"], temperature: float) -> Quantized: ...
    def codes(self, z: Float[Tensor, "B D h w"]) -> Int[Tensor, "B N"]: ...
    def vectors(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]: ...


def used(codes: Int[Tensor, "B N"], vocab: int) -> Float[Tensor, ""]:
    """How many different codes there are, counted without waiting for the device."""
    return torch.zeros(vocab, device=codes.device).index_fill_(0, codes.flatten(), 1.0).sum()
