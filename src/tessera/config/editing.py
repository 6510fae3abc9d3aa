"""What of a picture is drawn anew. Every option ends in one mask; this file knows no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tessera.config.merging import Checked, short
from tessera.config.ranges import Share
from tessera.errors import ConfigError

FARTHEST = 4.0
"""A picture grows by at most so many times its own side."""


@dataclass(frozen=True, kw_only=True)
class EditingConfig(Checked):
    """What is drawn anew beside what a mask says."""

    outpaint: str = ""
    """left,right,top,bottom: go on beyond these sides, by a share of the picture's width or height each. 0.5,0,0,0
    draws half a width more on the left."""
    vary: Share = 0.0
    """Draw this share of the codes anew, wherever they are."""
    vary_first: Literal["uncertain", "random"] = "uncertain"
    """Which codes `vary` means: those that the model finds least likely, or others by chance for each seed."""
    restore: bool = True
    """Put the picture's own pixels back where nothing is drawn anew, with a soft seam. Off, all pixels are what the
    image tokenizer makes of the codes."""

    def rules(self) -> None:
        self.sides()

    def sides(self) -> tuple[float, float, float, float]:
        """Of `outpaint`: left, right, top, bottom. Raises ConfigError for anything but four numbers."""
        if not self.outpaint.strip():
            return 0.0, 0.0, 0.0, 0.0
        try:
            left, right, top, bottom = map(float, self.outpaint.split(","))
        except ValueError:
            left = right = top = bottom = -1.0
        found = left, right, top, bottom
        if not all(0 <= side <= FARTHEST for side in found) or not any(found):
            raise ConfigError(
                f"outpaint is {short(self.outpaint)}; give four numbers from 0 to {FARTHEST:g}, left,right,top,bottom, "
                "such as 0.5,0,0,0: shares of the picture's own width or height, of which one is above 0."
            )
        return found
