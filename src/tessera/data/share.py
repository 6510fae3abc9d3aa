"""Which part of a large job this process has. The processes need not know of each other: the job is cut into numbered
parts that do not depend on how many there are, and each takes every so-manyth."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tessera.errors import ConfigError

T = TypeVar("T")
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
             ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))  # fmt: skip
"""Where torchrun, an array of SLURM and srun say which process this is and how many there are."""


@dataclass(frozen=True)
class Share:
    """Parts rank, rank + ranks, rank + 2 ranks, ..."""

    rank: int = 0
    ranks: int = 1

    def of(self, parts: Sequence[T]) -> Sequence[T]:
        return parts[self.rank :: self.ranks]

    def owner(self, part: int) -> int:
        """The rank that has this part."""
        return part % self.ranks


ALL = Share()


def share(rank: int, ranks: int, environment: Mapping[str, str] = os.environ) -> Share:
    """What was asked for; with `ranks` 0, what a launcher says, and everything without one. Raises ConfigError where
    that is no share."""
    if not ranks:
        said = next(((a, b) for a, b in LAUNCHERS if environment.get(a, "") and environment.get(b, "")), None)
        if said is None:
            if rank:
                raise ConfigError(f"rank is {rank}, and ranks is not given. Say of how many, for example --ranks 8.")
            return ALL
        numbers = [environment.get(name, "") for name in (*said, "SLURM_ARRAY_TASK_MIN")]
        if not all(n.isdecimal() for n in numbers[:2]):
            shown = " and ".join(f"{name} is '{n[:20]}'" for name, n in zip(said, numbers, strict=False))
            raise ConfigError(f"{shown}; both must be numbers. Say which part this is with --rank and --ranks.")
        first = int(numbers[2]) if said[0] == "SLURM_ARRAY_TASK_ID" and numbers[2].isdecimal() else 0
        rank, ranks = int(numbers[0]) - first, int(numbers[1])
    if not 0 <= rank < ranks:
        raise ConfigError(
            f"rank is {rank} of {ranks}; ranks count from 0 to {ranks - 1}. In an array of SLURM leave no number out: "
            f"--array=0-{ranks - 1}."
        )
    return Share(rank, ranks)


def told(missing: Sequence[int], of: int, parts: str, mine: Share) -> str:
    """Which parts are not there, and whose they are, for a sentence."""
    shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    owners = sorted({mine.owner(part) for part in missing})
    ranks = ", ".join(map(str, owners[:8])) + (", ..." if len(owners) > 8 else "")
    whose = f", of rank{'s' * (len(owners) > 1)} {ranks} of {mine.ranks}" if mine.ranks > 1 else ""
    return f"{len(missing):,} of {of:,} {parts} are missing (number {shown}{whose})"
