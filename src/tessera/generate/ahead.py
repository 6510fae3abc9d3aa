"""How many codes are read at once, and how many of those drawn from them are right. It knows no model."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor


class OneByOne:
    """Each code is read as soon as it is drawn; nothing is looked at, so that the device is never waited for.

    codes   a b c d . . . .
    read          d
    found           e
    """

    width = 1

    def first(self, known: int) -> int:
        """The first code that is drawn from what is read; what is read begins one code before."""
        return known

    def settle(self, codes: Int[Tensor, "B N"], found: Int[Tensor, "B n"], known: int) -> int:
        """How many of the codes `found`, which stand at `known`, are right. Others are guessed for the next step."""
        return 1


class Guesses:
    """Codes that follow are guessed and read with the last one that is known (Jacobi decoding, Santilli et al. 2023).

    codes   a b c d e'f'g'.      ' is a guess
    read          d e'f'g'
    found           e f g h      e = e' and f = f', but g is another than g':
    codes   a b c d e f g h'     e, f and g are right, and h is the next guess

    Because each place keeps its noise, the pictures equal those drawn one code at a time, up to rounding.
    """

    def __init__(self, width: int, total: int):
        self.width, self.total = width, total

    def first(self, known: int) -> int:
        return min(known, self.total - self.width)

    def settle(self, codes: Int[Tensor, "B N"], found: Int[Tensor, "B n"], known: int) -> int:
        end = known + found.shape[1]
        same = (found[:, :-1] == codes[:, known : end - 1]).all(0)
        codes[:, end:] = found[:, -1:]  # the first guess of a code is the one before it
        return 1 + int(same.cumprod(0).sum())


def window(ahead: int, total: int) -> OneByOne | Guesses:
    width = min(ahead, total - 1)
    return Guesses(width, total) if width > 1 else OneByOne()
