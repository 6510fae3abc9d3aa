"""What every quantizer gives."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Quantized(NamedTuple):
    """Code vectors [B, D, h, w] and the KL divergence from uniform codes, in nats per picture."""

    vectors: Tensor
    kl: Tensor
