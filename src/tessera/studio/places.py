"""Which folders a page may lead to: those below the ones that the command line names. It knows no contents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tessera.errors import ConfigError

MOST = 500
"""Folders that are listed at a time."""


@dataclass(frozen=True)
class Places:
    """The folders that were named, resolved once."""

    runs: Path
    roots: tuple[Path, ...]

    @staticmethod
    def of(runs: str, pictures: Sequence[str]) -> Places:
        """Raises ConfigError where a folder of pictures is not there."""
        roots = tuple(Path(root).expanduser().resolve() for root in pictures)
        for asked, root in zip(pictures, roots, strict=True):
            if not root.is_dir():
                raise ConfigError(f"--pictures {asked} is not a folder. Name one below which your pictures lie.")
        return Places(Path(runs).expanduser().resolve(), roots)

    def pictures(self, asked: str | Path) -> Path:
        """A folder below the roots, by its whole path or by the one below a root, with every link on the way followed
        first. Raises ConfigError for all others."""
        for root in self.roots:
            try:
                found = (root / asked).resolve()  # a whole path stays as it is
                if found.is_dir() and any(found.is_relative_to(own) for own in self.roots):
                    return found
            except (OSError, ValueError, RuntimeError):  # a name that is too long, a NUL, a circle of links
                continue
        raise ConfigError("This folder does not lie below a folder that the Studio was started with (--pictures).")

    def short(self, folder: Path) -> str:
        """The path of a folder below the first root that holds it."""
        root = next((root for root in self.roots if folder.is_relative_to(root)), folder)
        return str(folder.relative_to(root))

    def folders(self, asked: Path) -> list[Path]:
        """The folders in a folder below the roots, without hidden ones and links that lead out."""
        here = self.pictures(asked)
        try:
            names = sorted(p.name for p in here.iterdir() if not p.name.startswith(".") and p.is_dir())
        except OSError as error:
            raise ConfigError(f"{here.name} cannot be read: {error.strerror}.") from error
        return [here / name for name in names[:MOST] if self._inside(here / name)]

    def parent(self, folder: Path) -> Path | None:
        """The folder above, None where that is outside of the roots."""
        return None if folder in self.roots or not self._inside(folder.parent) else folder.parent

    def readable(self, file: Path) -> bool:
        """Whether a file lies below the roots, links followed."""
        return any(file.resolve().is_relative_to(root) for root in self.roots)

    def run(self, name: str) -> Path:
        """The folder of a run, which need not be there yet. Raises ConfigError for what is not a plain name, and for a
        link that leads out."""
        folder = self.runs / name
        plain = 0 < len(name) <= 80 and all(c.isalnum() or c in "-_." for c in name) and name[0] not in ".-"
        if not plain or name == "studio" or folder.resolve().parent != self.runs:
            raise ConfigError("The name of a run has letters, digits, '-', '_' and '.', and is not 'studio'.")
        return folder

    def _inside(self, folder: Path) -> bool:
        try:
            return bool(self.pictures(folder))
        except ConfigError:
            return False
