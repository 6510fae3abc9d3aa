"""The quantizers by name."""

from __future__ import annotations

from tessera.nn.quantize.fsq import FiniteScalar
from tessera.nn.quantize.gumbel import Gumbel

QUANTIZERS = {"gumbel": Gumbel, "fsq": FiniteScalar}
