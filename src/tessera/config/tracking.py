"""Where the numbers of a run go besides its own folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tessera.config.merging import Checked


@dataclass(frozen=True, kw_only=True)
class TrackConfig(Checked):
    """Where else a run's numbers and pictures go, besides its own folder."""

    use: tuple[Literal["wandb", "tensorboard", "trackio"], ...] = ()
    """Any of wandb (WANDB_MODE=offline works too), tensorboard, trackio."""
    project: str = "tessera"
    entity: str = ""
    """wandb: the team."""
    name: str = ""
    """Name of the run there; by default that of the run folder."""
