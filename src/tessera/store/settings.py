"""The settings that a run began with: read, recovered, compared with those of today. It knows no weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tessera.config import TrainConfig, adapted, train_config
from tessera.config.merging import differences, read_json
from tessera.errors import CheckpointError, ConfigError
from tessera.store.checkpoint import SETTINGS, verify

MAY_CHANGE = (
    "steps:", "budget:", "save_every:", "keep:", "log_every:", "valid_every:", "preview_every:", "patience:",
    "stop_collapsed:", "out:", "data.workers:", "optim.accumulate:", "machine.", "track.",
)  # fmt: skip
"""Settings that may change when a run is resumed."""


def is_run(folder: Path) -> bool:
    """Whether a folder holds the settings of a run; those of releases without markers are known by that."""
    try:
        read_settings(folder / "config.json")
    except CheckpointError:
        return False
    return True


def read_settings(path: Path) -> TrainConfig:
    """Raises CheckpointError where a file does not hold a run's settings."""
    try:
        return train_config(read_json(path, dict))
    except (ConfigError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} does not hold a run's settings: {error}") from error


def recorded(path: Path, checkpoints: Sequence[Path]) -> tuple[TrainConfig | None, str]:
    """The settings in a run's config.json, or else those in the newest checkpoint that has them, with a notice about
    that. Raises CheckpointError if there are checkpoints and none of them has settings."""
    try:
        return read_settings(path), ""
    except CheckpointError as error:
        wrong = f"{path} is missing" if not path.exists() else str(error).rstrip(".")
    for checkpoint in reversed(checkpoints):
        with suppress(CheckpointError):
            verify(checkpoint, lambda name: name == SETTINGS)
            return read_settings(checkpoint / SETTINGS), f"{wrong}; the settings are those of {checkpoint.name}."
    if checkpoints:
        raise CheckpointError(
            f"{wrong}, and no checkpoint holds its settings, so they cannot be compared. "
            "Restore config.json, or give another --out to start a new run."
        )
    return None, f"{wrong}; the run starts from the beginning." if path.exists() else ""


def refuse_changes(folder: Path, old: TrainConfig, new: TrainConfig) -> None:
    """Raise ConfigError where settings differ that must not change when a run is resumed."""
    if not old.data.path:  # imported, and not yet trained here: only what its weights depend on is given
        changed = differences(adapted(old.model, new.model), new.model, "model.")
    else:
        changed = [d for d in differences(old, new) if not d.startswith(MAY_CHANGE)]
    if changed:
        raise ConfigError(
            f"{folder} holds a run with other settings ({'; '.join(changed[:4])}). "
            "Give the same settings to resume it, or another --out to start a new run."
        )
