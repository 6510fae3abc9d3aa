"""The quantizers by name; the names are those of `config.QUANTIZERS`."""

from __future__ import annotations

from typing import Any

from tessera.config import Quantizer, kind_of
from tessera.nn.quantize.fsq import FiniteScalar
from tessera.nn.quantize.gumbel import GumbelSoftmax
from tessera.nn.quantize.library import LookupFree, MovingAverage, TurnedCodebook
from tessera.nn.quantize.lookup import Nearest

QUANTIZERS: dict[str, Any] = {
    "fsq": FiniteScalar,
    "gumbel": GumbelSoftmax,
    "lookup": Nearest,
    "lfq": LookupFree,
    "simvq": TurnedCodebook,
    "ema": MovingAverage,
}


def quantizer(config: Quantizer) -> Any:
    """The module that its settings describe. Raises ConfigError where it needs a package that is not installed."""
    return QUANTIZERS[kind_of(config)](config)
