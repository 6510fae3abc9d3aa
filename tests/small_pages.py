"""Commands and programs in the documents. A page's placeholders have tiny stand-ins, all of them here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(p for p in (ROOT / "docs").rglob("*.md") if p.name != "LOG.md")])
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.M | re.S)
SHELLS = {"", "sh", "bash", "console"}


@dataclass(frozen=True)
class Command:
    page: str
    line: str
    """As it stands there, its comment left out."""

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line)

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


def blocks(page: Path, *kinds: str) -> Iterator[str]:
    """The code of a page in blocks of these languages."""
    for kind, code in BLOCK.findall(page.read_text("utf-8")):
        if kind in kinds:
            yield code


def commands(page: Path) -> Iterator[Command]:
    """The `tessera` commands in a page's blocks, lines joined where they go on, chains taken apart, launchers left out."""
    for code in blocks(page, *SHELLS):
        for line in code.replace("\\\n", " ").splitlines():
            for part in re.split(r" && |; ", line):
                plain = re.sub(r"\s+#\s.*$", "", part).strip()
                launched = re.search(r"(?:-m|--module) (tessera .*)$", plain)
                plain = launched[1] if launched else plain
                if plain.startswith("tessera ") and " ... " not in f"{plain} " and "[" not in plain:
                    yield Command(page.relative_to(ROOT).as_posix(), plain)


def all_commands() -> list[Command]:
    return [c for page in PAGES for c in commands(page)]
