"""What a user calls a run: a folder, or user/name on the hub. It asks no hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tessera.errors import ConfigError

PREFIX = "hf:"
RUNS = "runs"
"""Where runs lie by default: a folder that is missing there is a misspelled one, not one on the hub."""
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9][\w./-]{{0,199}}))?")


@dataclass(frozen=True)
class Name:
    """A run on the hub."""

    repo: str
    """user/name."""
    revision: str = ""
    """A branch, a tag or a commit; the newest where there is none."""

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


def parse(text: str) -> Name:
    """user/name or user/name@REVISION, with or without hf: before it. Raises ConfigError for anything else."""
    match = _NAME.fullmatch(text.removeprefix(PREFIX))
    if not match or ".." in text or "--" in match[1]:
        raise ConfigError(
            f"'{text[:120]}' is not a name on the hub: write user/name, or user/name@REVISION; letters, digits, '-', "
            "'_' and '.'."
        )
    return Name(match[1], match[2] or "")


def wanted(run: str | Path) -> Name | None:
    """The name on the hub that a run's name stands for; None where it stands for a folder of this machine.

    hf:user/name is always on the hub. A bare user/name is a folder where that folder, or `user` itself, is here, so
    that a misspelled name beside other runs is never looked for among other people's.
    """
    if not isinstance(run, str):
        return None
    if run.startswith(PREFIX):
        return parse(run)
    first = run.partition("/")[0]
    if not _NAME.fullmatch(run) or first == RUNS or Path(run).exists() or Path(first).exists():
        return None
    return parse(run)
