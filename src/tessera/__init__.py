"""Tessera: train your own text-to-image transformer on your own captioned pictures."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tessera.generate.pipeline import Pipeline

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`tessera.train(config)` trains a model, or goes on where it stopped, and returns its Run; see
    `journeys/training.py`. It is the part `tessera.train` too, which is loaded here because it loads no torch."""
    if name == "train":
        return importlib.import_module("tessera.train")
    raise AttributeError(f"module 'tessera' has no attribute '{name}'")


def load(run: str | Path, device: str = "auto", **options: Any) -> Pipeline:
    """The trained model in a run folder: `tessera.load("runs/birds")("a red bird", count=4, seed=7)`.

    `options` are those of `Pipeline.load`: weights ("float32", "bf16", "int8") and compile ("auto", "on", "off").
    Raises CheckpointError where the folder holds none, ConfigError that names a wrong option.
    """
    from tessera.config.merging import nearest
    from tessera.errors import ConfigError
    from tessera.generate.pipeline import Pipeline  # here, because importing tessera loads no torch

    for name in options:
        if name not in (known := ("device", "weights", "compile")):
            raise ConfigError(f"There is no option '{name}'{nearest(name, known) or '.'} Known: {', '.join(known)}.")
    return Pipeline.load(run, device, **options)
