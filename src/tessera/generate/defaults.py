"""What a run folder says of drawing: from which checkpoint, and how where nobody says otherwise. It knows no models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tessera.config import PLAIN, SampleConfig
from tessera.config.merging import Checked, cast, read_json
from tessera.errors import CheckpointError
from tessera.files.atomic import write_whole
from tessera.hub.pull import located
from tessera.store.run import checkpoint_of

FILE = "drawing.json"


def find(run: str | Path) -> Path:
    """The checkpoint to draw from: the best of a run, or the one that is named; user/name is fetched from the hub.
    Raises CheckpointError where neither exists."""
    folder = located(cast(run, str | Path, "run"))
    if not folder.is_dir():
        raise CheckpointError(f"There is no run folder {run}. Train one with: tessera learn PICTURES --out {run}")
    return checkpoint_of(folder)


@dataclass(frozen=True, kw_only=True)
class Drawing(Checked):
    """What stands in the file."""

    sampling: SampleConfig
    """The settings that are taken where none are given."""
    checkpoint: str = ""
    """The checkpoint that was measured."""
    tried: tuple[dict[str, float], ...] = ()
    """What was tried before these were chosen, with its figures; nothing reads it but people."""


def kept(run: str | Path) -> Drawing | None:
    """Of a run folder, or of the run that holds a checkpoint; None where it has none.

    Raises ConfigError where the file cannot be read or asks for what cannot be.
    """
    folder = located(run)
    path = (folder.parent if folder.name.startswith("step-") else folder) / FILE
    return read_json(path, Drawing) if path.is_file() else None


def usual(run: str | Path) -> SampleConfig:
    """The settings that a run draws with where none are given."""
    found = kept(run) if run else None
    return found.sampling if found else PLAIN


def keep(run: Path, sampling: SampleConfig, tried: Sequence[dict[str, float]], checkpoint: str = "") -> None:
    """Write the file, whole or not at all."""
    found = Drawing(sampling=sampling, checkpoint=checkpoint, tried=tuple(tried))
    write_whole(run / FILE, json.dumps(asdict(found), indent=1))
