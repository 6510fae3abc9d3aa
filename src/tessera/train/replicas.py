"""Work that all ranks do or none, and numbers that must be the same on all of them. It knows no machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from tessera.errors import TesseraError
from tessera.train.engines.protocol import Engine
from tessera.train.objectives.protocol import Objective

T = TypeVar("T")


def together(engine: Engine, work: Callable[[], T]) -> T:
    """Work on every rank; where one fails with a sentence all of them end, and it alone speaks."""
    made, failed = None, None
    try:
        made = work()
    except TesseraError as error:
        failed = error
    if engine.least(0.0 if failed else 1.0) < 1:
        raise failed or SystemExit(2)
    return made  # type: ignore[return-value]


def fingerprint(objective: Objective) -> float:
    """The same number for the same pairs in the same order."""
    digest = hashlib.blake2b(digest_size=6)
    for pair in objective.pairs:
        digest.update("\n".join((pair.key, *pair.captions)).encode("utf-8", "surrogateescape"))
    return float(int.from_bytes(digest.digest(), "big"))


def checksum(engine: Engine, objective: Objective) -> float:
    """A number that replicas share to the last bit; where weights are cut up there is nothing to compare."""
    if engine.world == 1 or not engine.replicated:
        return 0.0
    return float(
        sum(p.detach().double().sum() for network in objective.networks.values() for p in network.parameters())
    )
