"""Which part of a large job this process has. The processes need not know of each other: the job is cut into numbered
parts that do not depend on how many there are, and each takes every so-manyth."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tessera.errors import ConfigError

T = TypeVar("T")
ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
"""Where an array of SLURM, torchrun and srun say which process this is and how many there are."""


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
    """What was asked for; with `ranks` 0 what a launcher says, or everything without one. Raises ConfigError for a rank
    that is not below the number of ranks."""
    if not ranks and rank:
        raise ConfigError(f"rank is {rank}, and ranks is not given. Say of how many, for example --ranks 8.")
    if not ranks:  # processes of a launcher inside of an array's task
        inner = next((pair for pair in LAUNCHERS if all(environment.get(name) for name in pair)), None)
        first = _number(environment, "SLURM_ARRAY_TASK_MIN") if environment.get("SLURM_ARRAY_TASK_MIN") else 0
        task, tasks = (_number(environment, n) for n in ARRAY) if all(environment.get(n) for n in ARRAY) else (first, 1)
        own, each = (_number(environment, name) for name in inner) if inner else (0, 1)
        rank, ranks = (task - first) * each + own, tasks * each
    if not 0 <= rank < ranks:
        raise ConfigError(
            f"rank is {rank} of {ranks}; ranks count from 0 to {ranks - 1}. In an array of SLURM leave no number out: "
            f"--array=0-{ranks - 1}."
        )
    return Share(rank, ranks)


def _number(environment: Mapping[str, str], name: str) -> int:
    if not environment[name].isdecimal():
        said = environment[name][:20]
        raise ConfigError(f"{name} is '{said}', not a number. Set --rank and --ranks instead.")
    return int(environment[name])


def told(missing: Sequence[int], of: int, parts: str, mine: Share) -> str:
    """Which parts are not there, and whose they are, for a sentence."""
    shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    owners = sorted({mine.owner(part) for part in missing})
    ranks = ", ".join(map(str, owners[:8])) + (", ..." if len(owners) > 8 else "")
    whose = f", of rank{'s' * (len(owners) > 1)} {ranks} of {mine.ranks}" if mine.ranks > 1 else ""
    return f"{len(missing):,} of {of:,} {parts} are missing (number {shown}{whose})"
