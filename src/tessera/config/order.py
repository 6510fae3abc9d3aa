"""In which order codes are drawn, and how many at a time. It knows no model but the kinds of their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from tessera.config.merging import Checked
from tessera.config.ranges import NotNegative

Steps = Annotated[int, Ge(0), Le(65_536)]
Order = Literal["auto", "raster", "halton", "random", "confidence"]
Schedule = Literal["constant", "linear"]


@dataclass(frozen=True, kw_only=True)
class OrderConfig(Checked):
    """What a prior of any order (any-*) may be asked for; one of reading order (t2i-*) draws as the defaults say."""

    steps: Steps = 0
    """Draw all codes in so many steps, several codes in each (any-* runs); 0 draws code by code."""
    order: Order = "auto"
    """Which codes come first (any-* runs): reading order; spread over the picture (Besnier et al. 2025); by chance; or
    those that the model is surest of (MaskGIT, Chang et al. 2022). auto is raster code by code, halton in steps."""
    choice_temperature: NotNegative = 1.0
    """How much chance there is in what counts as sure (order confidence); it falls to 0 with the last step."""
    guidance_schedule: Schedule = "constant"
    """Guidance is the same in all steps, or grows from 1 with the codes that are known (any-* runs)."""
