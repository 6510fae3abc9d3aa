"""What a run learns from, and which pairs are held out. It reads nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tessera.data.codes import Codes
from tessera.data.sources import Pair


@dataclass(frozen=True)
class Data:
    """What a run learns from."""

    pairs: list[Pair]
    held: list[Pair]
    """Never learned from; their loss is the held-out loss."""
    skipped: int
    """How many pictures were left out."""
    codes: Codes | None = None
    """Where the pictures were encoded beforehand."""


def split(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs, by a stable hash of the key: adding pictures never moves one across."""

    def held(pair: Pair) -> bool:
        digest = hashlib.blake2b(pair.key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") < share * 2**64

    return [p for p in pairs if not held(p)], [p for p in pairs if held(p)]
