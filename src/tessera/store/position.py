"""Where a run stands: what a checkpoint stores besides weights and optimiser. It knows no training."""

# pyright: reportInvalidTypeForm=false
# Type checkers do not accept infinity as a literal; `cast` does.

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

Count = Annotated[int, Ge(0)]
Lowest = float | Literal[math.inf]  # infinite until there is a loss


@dataclass
class Position:
    """Where a run stands: what a checkpoint stores besides weights, optimiser and learning rate."""

    step: Count = 0
    elapsed: Annotated[float, Ge(0)] = 0.0
    best: Lowest = math.inf
    stale: Count = 0
    spoiled: Count = 0


@dataclass
class Halvings:
    """The state of the learning rate's schedule."""

    scale: Annotated[float, Gt(0), Le(1)]
    best: Lowest
    stale: Count


@dataclass
class State:
    """The content of a checkpoint's folder `state`."""

    schedule: Halvings
    """Of the network that is drawn from."""
    at: Position
    others: dict[str, Halvings] = field(default_factory=dict[str, Halvings])
    """Schedules of further networks, by their names."""
