"""Tessera: train your own text-to-image transformer on your own captioned pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tessera.generate.pipeline import Pipeline

__version__ = "0.1.0"


def load(run: str, device: str = "auto") -> Pipeline:
    """The trained model in a run folder: `tessera.load("runs/birds")("a red bird", count=4, seed=7)`.

    Raises CheckpointError where the folder holds none.
    """
    from tessera.generate.pipeline import Pipeline  # here, because importing tessera loads no torch

    return Pipeline.load(run, device)
