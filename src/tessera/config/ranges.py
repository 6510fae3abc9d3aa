"""Types of settings that carry their range. It knows no setting."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

# Upper bounds lie far above what anybody trains, and far below what makes a machine hang.
Count = Annotated[int, Ge(1), Le(1_000_000_000)]
CountOrZero = Annotated[int, Ge(0), Le(1_000_000_000)]
Batch = Annotated[int, Ge(1), Le(1_000_000)]
Pictures = Annotated[int, Ge(1), Le(1_000_000)]
Width = Annotated[int, Ge(1), Le(65_536)]
Depth = Annotated[int, Ge(1), Le(1_024)]
Processes = Annotated[int, Ge(0), Le(1_024)]
Pixels = Annotated[int, Ge(1), Le(4_096)]
Channels = Annotated[int, Ge(1), Le(4)]
Vocabulary = Annotated[int, Ge(0), Le(1_048_576)]
TextLength = Annotated[int, Ge(0), Le(16_384)]
GridSide = Annotated[int, Ge(0), Le(256)]
MOST_CODES = 262_144
Codes = Annotated[int, Ge(2), Le(MOST_CODES)]
Seed = Annotated[int, Ge(0), Lt(2**63)]
Share = Annotated[float, Ge(0), Le(1)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
ShareAboveZero = Annotated[float, Gt(0), Le(1)]
Positive = Annotated[float, Gt(0), Le(1e30)]
NotNegative = Annotated[float, Ge(0), Le(1e30)]
Guidance = Annotated[float, Ge(-1_000), Le(1_000)]
