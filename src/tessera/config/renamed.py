"""Settings that had another name once: the one table of them, and how they are understood. It knows no types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Moved(NamedTuple):
    """Where a setting stands now."""

    to: str
    """Its name in the same table of settings, or `part.name` where it moved into a part."""
    kind: str = ""
    """The kind of part that it belongs to, where that comes in several kinds."""

    @property
    def part(self) -> str:
        return self.to.rpartition(".")[0]


RENAMED: Mapping[str, Mapping[str, Moved]] = {
    "DVAEConfig": {  # 0.1 had the settings of all quantizers side by side
        "levels": Moved("quantizer.levels", "fsq"),
        "codes": Moved("quantizer.codes", "gumbel"),
        "code_dim": Moved("quantizer.code_dim", "gumbel"),
        "kl_weight": Moved("quantizer.kl_weight", "gumbel"),
        "temperature": Moved("quantizer.temperature", "gumbel"),
        "temperature_end": Moved("quantizer.temperature_end", "gumbel"),
        "straight_through": Moved("quantizer.straight_through", "gumbel"),
        "reinmax": Moved("quantizer.reinmax", "gumbel"),
    },
}
"""By the class that had the setting, then by its earlier name."""


@dataclass(frozen=True)
class Renewing:
    """How settings under earlier names are understood, in one table of settings."""

    of: str
    """The class that they are settings of."""
    where: str
    """What stands before their names: "model."."""
    kind: Callable[[str], object]
    """Of which kind a part is, or is asked to be."""
    notice: Callable[[str], None]
    """Is told what became of each."""

    def changes(self, changes: Mapping[str, object]) -> dict[str, object]:
        """The changes, with earlier names put where they belong now."""
        table = RENAMED.get(self.of, {})
        found = {name: value for name, value in changes.items() if name not in table}
        for name in (n for n in changes if n in table):
            moved = table[name]
            if not self.has_effect(name, moved):
                continue
            if not moved.part:
                found.setdefault(moved.to, changes[name])
                continue
            there = found.get(moved.part, {})
            inside: object = {"kind": there} if isinstance(there, str) else there
            if isinstance(inside, Mapping):
                found[moved.part] = {moved.to.rpartition(".")[2]: changes[name], **inside}
        return found

    def has_effect(self, name: str, moved: Moved) -> bool:
        """Whether a setting under an earlier name has an effect; what belongs to another kind of part never had one."""
        if moved.kind and (found := self.kind(moved.part)) != moved.kind:
            part = f"{self.where}{moved.part}"
            self.notice(f"{self.where}{name} belongs to {part} {moved.kind}; this is {found}, so it has no effect.")
            return False
        self.notice(f"{self.where}{name} is now called {self.where}{moved.to}.")
        return True
