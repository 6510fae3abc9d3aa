"""How pictures are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from tessera.config.merging import Checked
from tessera.config.ranges import Guidance, NotNegative, ShareAboveZero
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Checked):
    """How codes are drawn from the model's predictions."""

    temperature: NotNegative = 1.0
    """0 always takes the likeliest code; above 1 is wilder."""
    top_k: Annotated[float, Ge(0), Le(1_048_576)] = 0.0
    """Keep only the k likeliest codes; below 1 a share of the codebook; 0 keeps all."""
    top_p: ShareAboveZero = 1.0
    """Keep the likeliest codes that hold this much probability together (Holtzman et al. 2020)."""
    guidance: Guidance = 1.0
    """Push away from the picture without a caption (Ho & Salimans 2022); 1 is off, 2 to 5 is usual."""
    ahead: Annotated[int, Ge(1), Le(65_536)] = 1
    """Read this many codes at once, all but the first guessed; the pictures stay the same. Pays for one at a time."""

    def rules(self) -> None:
        if 0 < self.temperature < 1e-6:
            raise ConfigError(f"temperature is {self.temperature}; give 0 for the likeliest code, or at least 1e-6.")
        if self.top_k > 1 and self.top_k != int(self.top_k):
            raise ConfigError(f"top-k is {self.top_k}; give a count (50) or a share of the codebook (0.1).")
