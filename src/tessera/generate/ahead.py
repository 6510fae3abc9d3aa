"""How many codes a step reads, and how many of those it draws are accepted. It does not know the model."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor


class OneByOne:
    """Each step reads the last code and draws the next. The device is never waited for.

    codes   a b c d . . . .
    read          d
    found           e
    codes   a b c d e . . .
    """

    width = 1

    def first(self, known: int) -> int:
        """The first place that a step draws; it reads from the code before it."""
        return known

    def accept(self, codes: Int[Tensor, "B N"], found: Int[Tensor, "B n"], first: int, known: int) -> int:
        """Write what was `found` at `first` behind the `known` codes; how many of these are right."""
        codes[:, known : known + 1] = found
        return 1


class Guesses:
    """The codes that follow are guessed and read together with the last known one (Jacobi decoding, Santilli et al.
    2023).

    codes   a b c d e'f'g'.      ' is a guess
    read          d e'f'g'
    found           e f g h      e = e' and f = f', but g is not g':
    codes   a b c d e f g h'     e, f and g are right; h is the next guess

    Each place keeps its noise, so the pictures are those drawn one code at a time, up to rounding.
    """

    def __init__(self, width: int, total: int):
        self.width, self.total = width, total

    def first(self, known: int) -> int:
        return min(known, self.total - self.width)

    def accept(self, codes: Int[Tensor, "B N"], found: Int[Tensor, "B n"], first: int, known: int) -> int:
        found = found[:, known - first :]  # near the end, known codes are read again: they stay as they are
        end = known + found.shape[1]
        same = (found[:, :-1] == codes[:, known : end - 1]).all(0)
        codes[:, known:end] = found
        codes[:, end:] = found[:, -1:]  # the first guess of a code is the one before it
        return 1 + int(same.cumprod(0).sum())


def window(ahead: int, total: int) -> OneByOne | Guesses:
    width = min(ahead, total - 1)
    return Guesses(width, total) if width > 1 else OneByOne()
