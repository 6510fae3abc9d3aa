"""What pictures know before they are drawn: nothing, the first rows of another, or all that a mask keeps. It does not
know pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor


class Given(NamedTuple):
    """Codes of pictures, and which of them are drawn; one row where all pictures are alike."""

    known: Int[Tensor, "B N"]
    """What stands where the mask is True means nothing."""
    mask: Bool[Tensor, "B N"]

    def of(self, own: slice) -> Given:
        """Those of some of the pictures."""
        return Given(*(rows if len(rows) == 1 else rows[own] for rows in self))

    @staticmethod
    def first(codes: Int[Tensor, "B n"], total: int) -> Given:
        """The first n of `total` codes."""
        mask = torch.arange(total, device=codes.device) >= codes.shape[1]
        return Given(F.pad(codes, (0, total - codes.shape[1])), mask[None])

    @staticmethod
    def nothing(total: int) -> Given:
        return Given.first(torch.zeros(1, 0, dtype=torch.long), total)
