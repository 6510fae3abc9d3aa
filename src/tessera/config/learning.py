"""The options of `learn`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from tessera.config.casting import seconds
from tessera.config.merging import Checked
from tessera.config.ranges import Count, Guidance, Seed, ShareAboveZero
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LearnConfig(Checked):
    """The options of `learn`; it chooses everything else for the data and the machine."""

    pictures: str = ""
    """Folder of captioned pictures, in any layout that `tessera data check` accepts."""
    captions: str = ""
    """A second folder or COCO JSON file with the captions, where they are not in the same folder tree."""
    out: str = ""
    """Run folder; by default runs/NAME, by the name of the pictures' folder."""
    budget: str = "30m"
    """Time for everything: checking, training, encoding, drawing and the report."""
    seed: Seed = 0
    """Every random number follows from it."""
    pixels: Annotated[int, Ge(0), Le(4_096)] = 0
    """Side of the pictures in pixels; 0 chooses: up to 64 on a CPU (128 with 6 hours or more), up to 256 on a GPU."""
    grid: Literal[0, 8, 16, 32] = 0
    """Side of the grid of codes; 0 chooses 8 on a CPU and 16 on a GPU. A smaller grid trains faster and keeps less
    detail."""
    perceptual: Literal["auto", "lite0", "none"] = "auto"
    """What the image tokenizer's training compares besides pixels: lite0 is what a network sees that others trained on
    ImageNet, none is nothing that you do not own; auto is lite0 where its packages are installed."""
    any_order: bool = False
    """Train a prior that predicts any codes from any others: it can draw a part of a picture anew (tessera edit), and a
    picture in a few steps. One of reading order learns colours and shapes a little sooner."""
    crop: ShareAboveZero = 0.75
    """Smallest share of the area that a random crop keeps; 1 takes the pictures whole."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    samples: Count = 16
    """How many held-out captions to draw for the report."""
    search: bool = True
    """Try a dozen ways of drawing on captions that were never learned, and keep the best with the run."""
    guidance: Guidance = 2.0
    """Guidance scale that is kept with the run where nothing is tried."""

    def rules(self) -> None:
        if not self.pictures:
            raise ConfigError("Name the folder with your captioned pictures: tessera learn PICTURES.")
        if self.seed + self.samples > 2**63:
            raise ConfigError(f"seed is {self.seed}; with {self.samples} samples the last seed would be over 2^63 - 1.")
        if seconds(self.budget) == float("inf"):
            raise ConfigError("learn needs a budget, for example --budget 30m.")
        if self.pixels % 16:
            raise ConfigError(f"pixels is {self.pixels}; it must be a multiple of 16.")
        if self.pixels and self.grid > self.pixels // 2:
            raise ConfigError(f"grid is {self.grid}; it must be at most half of pixels ({self.pixels}).")
