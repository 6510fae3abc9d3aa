"""How a run draws where nobody says otherwise: a file in its folder. It knows no models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tessera.config import SampleConfig
from tessera.config.merging import Checked, read_json
from tessera.files.atomic import write_whole

FILE = "drawing.json"


@dataclass(frozen=True, kw_only=True)
class Drawing(Checked):
    """What stands in the file."""

    sampling: SampleConfig
    """The settings that are taken where none are given."""
    tried: tuple[dict[str, float], ...] = ()
    """What was tried before these were chosen, with its figures; nothing reads it but people."""


def kept(run: str | Path) -> Drawing | None:
    """Of a run folder, or of the run that holds a checkpoint; None where it has none.

    Raises ConfigError where the file cannot be read or asks for what cannot be.
    """
    folder = Path(run)
    path = (folder.parent if folder.name.startswith("step-") else folder) / FILE
    return read_json(path, Drawing) if path.is_file() else None


def usual(run: str | Path) -> SampleConfig:
    """The settings that a run draws with where none are given."""
    found = kept(run)
    return found.sampling if found else SampleConfig()


def keep(run: Path, sampling: SampleConfig, tried: Sequence[dict[str, float]]) -> None:
    """Write the file, whole or not at all."""
    write_whole(run / FILE, json.dumps(asdict(Drawing(sampling=sampling, tried=tuple(tried))), indent=1))
