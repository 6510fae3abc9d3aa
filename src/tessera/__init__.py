"""Tessera: train your own text-to-image transformer on your own captioned pictures."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tessera.errors import CheckpointError, ConfigError, DataError, TesseraError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tessera.config.presets import preset
    from tessera.generate.pipeline import Pipeline
    from tessera.store.run import Run

    train: Callable[..., Run]

__version__ = "0.2.0"
__all__ = [
    "CheckpointError", "ConfigError", "DataError", "Pipeline", "Run", "TesseraError", "__version__", "load", "preset",
    "train",
]  # fmt: skip

LATER = ("Pipeline", "Run", "preset", "train")
"""Names that are looked up when they are first asked for, because importing tessera loads no torch."""


def __getattr__(name: str) -> Any:
    """`tessera.train(config)` trains a model, or goes on where it stopped, and returns its Run; see
    `journeys/training.py`. It is the part `tessera.train` too, which is loaded here because it loads no torch."""
    if name not in LATER:
        raise AttributeError(f"module 'tessera' has no attribute '{name}'")
    if name == "train":
        return importlib.import_module("tessera.train")
    from tessera.config.presets import preset
    from tessera.generate.pipeline import Pipeline
    from tessera.store.run import Run

    return {"Pipeline": Pipeline, "Run": Run, "preset": preset}[name]


def load(run: str | Path, device: str = "auto", **options: Any) -> Pipeline:
    """The trained model in a run folder: `tessera.load("runs/birds")("a red bird", count=4, seed=7)`.

    `options` are those of `Pipeline.load`: weights ("float32", "bf16", "int8") and compile ("auto", "on", "off").
    Raises CheckpointError where the folder holds none, ConfigError that names a wrong option.
    """
    from tessera.config.merging import nearest
    from tessera.generate.pipeline import Pipeline  # here, because importing tessera loads no torch

    for name in options:
        if name not in (known := ("device", "weights", "compile")):
            raise ConfigError(f"There is no option '{name}'{nearest(name, known) or '.'} Known: {', '.join(known)}.")
    return Pipeline.load(run, device, **options)
