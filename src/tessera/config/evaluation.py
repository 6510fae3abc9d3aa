"""What `evaluate` and `compare` may be told."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from annotated_types import Ge, Le

from tessera.config.drawing import SampleConfig
from tessera.config.merging import Checked
from tessera.config.ranges import Batch, CountOrZero, Guidance, Seed
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PicturesConfig(Checked):
    """Where the pictures are now."""

    path: str = ""
    """The pictures that the run was trained on, where they were moved; or, where it held none back, pictures that it
    never saw."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SampleConfig):
    """Say how good a finished run is, and whether it copies. Stopped, the same command goes on."""

    data: PicturesConfig = field(default_factory=PicturesConfig)
    captions: str = ""
    """A second folder, COCO JSON or column with the captions."""
    count: Annotated[int, Ge(0), Le(100_000)] = 500
    """Drawings in all; 0 measures what needs none."""
    seeds: Annotated[int, Ge(1), Le(100)] = 3
    """The drawings are made in this many groups, each with seeds of its own, and intervals include how these differ."""
    seed: Seed = 0
    """Seed of the first drawing; all chance is a function of it."""
    features: str = "lite2"
    """What looks at pictures: lite2 or lite0, none, or inception, dinov2, clip, which are downloaded once or read from
    this machine: inception:FILE, dinov2:FOLDER, clip:FOLDER."""
    judge: str = ""
    """A clip run that ranks captions; it must have had no part in the training or the ranking of drawings."""
    guidance: Guidance = 2.0
    """Guidance scale of the drawings; 1 is off."""
    photographs: CountOrZero = 0
    """Look at no more than this many learned pictures, and as many held-out ones; 0 looks at every learned one, which
    the verdict on copying needs."""
    ranked: CountOrZero = 50
    """Pictures whose caption is ranked among 100 by the model's own likelihood."""
    out: str = ""
    """Folder for the results and for what makes the same command go on; by default RUN/evaluation."""
    batch: Batch = 64
    """Pictures drawn at a time; it changes no picture."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    @property
    def sampling(self) -> SampleConfig:
        """How the drawings are drawn."""
        return SampleConfig(**{f.name: getattr(self, f.name) for f in fields(SampleConfig)})

    def rules(self) -> None:
        super().rules()
        if self.seed + self.count > 2**63:
            raise ConfigError(f"seed is {self.seed}; with {self.count} drawings the last would be over 2^63 - 1.")
        if self.count and self.seeds > self.count:
            raise ConfigError(f"seeds is {self.seeds}; {self.count} drawings cannot be made in so many groups.")


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Checked):
    """Put evaluated runs side by side, and say which differences are larger than noise."""

    format: Literal["table", "json"] = "table"
    """json prints one object instead of a table."""
