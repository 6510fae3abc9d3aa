"""All that a page may ask, in one value."""

from __future__ import annotations

from dataclasses import dataclass

from tessera.config.studio import StudioConfig
from tessera.studio.catalogue import Catalogue
from tessera.studio.drawing import Easel
from tessera.studio.gallery import Gallery
from tessera.studio.places import Places
from tessera.studio.processes import Processes
from tessera.studio.runs import Seen, seen


@dataclass(frozen=True)
class Studio:
    """The parts of one Studio."""

    places: Places
    config: StudioConfig
    easel: Easel
    gallery: Gallery
    processes: Processes
    catalogue: Catalogue

    def runs(self) -> list[Seen]:
        return seen(self.places)

    def run(self, name: str) -> Seen | None:
        return next((run for run in self.runs() if run.name == name), None)

    def drawable(self) -> list[str]:
        """Names of the runs that are drawn from, the one that was worked at last first."""
        held = self.easel.benches
        return [run.name for run in self.runs() if run.name in held]
