"""Figures about codes, pictures and drawings. It knows no files and no pages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from tessera.data import birds


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


def colours_right(pictures: Sequence[Image.Image], asked: Sequence[birds.Bird]) -> dict[str, float]:
    """For each part of the built-in birds, the share of pictures in which it has the asked colour; "all" over parts."""
    right = dict.fromkeys(birds.PALETTES, 0)
    for picture, bird in zip(pictures, asked, strict=True):
        found = birds.measure(picture)
        for part in right:
            right[part] += found[part] == getattr(bird, part)
    shares = {part: count / len(pictures) for part, count in right.items()}
    return {**shares, "all": sum(shares.values()) / len(shares)}
