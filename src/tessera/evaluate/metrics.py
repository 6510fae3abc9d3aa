"""Figures about codes, pictures and drawings. It knows no files and no pages."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def unigram_entropy(codes: Int[Tensor, "B N"]) -> float:
    """Nats per code of the best predictor that knows no context: the entropy of these very codes' frequencies."""
    share = torch.bincount(codes.flatten()).double()
    share = share[share > 0] / share.sum()
    return float(-(share * share.log()).sum())


def usage(codes: Int[Tensor, "B N"], vocab: int) -> tuple[int, float]:
    """How many codes are used at all, and their perplexity."""
    return int((torch.bincount(codes.flatten(), minlength=vocab) > 0).sum()), math.exp(unigram_entropy(codes))


def psnr(a: Float[Tensor, "B C S S"], b: Float[Tensor, "B C S S"]) -> float:
    """Peak signal-to-noise ratio in dB of pictures in 0 ... 1, averaged over pictures."""
    error = (a - b).square().flatten(1).mean(1).clamp(min=1e-10)
    return float((-10 * error.log10()).mean())
