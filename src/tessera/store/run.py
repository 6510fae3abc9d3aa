"""A run folder: config, checkpoints, metrics. Every file in it is written atomically. It knows no training.

runs/birds/  config.json  metrics.jsonl  samples/  latest  best
             step-000500/{config.json, weights.safetensors, image_tokenizer/, text_tokenizer/, state/, optimizer/,
                          run.json, checksums.json}; with optim.ema weights.safetensors is the mean, and weights/
                          holds what training goes on from; networks/NAME/ has the parts of further networks
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from tessera.config import TrainConfig, to_dict
from tessera.errors import CheckpointError
from tessera.files.atomic import write_whole
from tessera.store.checkpoint import verify
from tessera.store.folder import RunFolder
from tessera.store.settings import recorded, refuse_changes


class Run(RunFolder):
    """One run."""

    def exists(self) -> bool:
        return (self.folder / "config.json").is_file()

    def config(self) -> TrainConfig:
        """The settings of the run. Raises CheckpointError if the folder is not a run."""
        config, _ = recorded(self.folder / "config.json", self.checkpoints())
        if config is None:
            raise CheckpointError(f"{self.folder} is not a run folder: it holds no readable config.json.")
        return config

    def open(self, config: TrainConfig) -> list[str]:
        """Start or resume the run. Returns notices for the user.

        Raises ConfigError if the folder holds a run with other settings.
        """
        self.make()
        old, notice = recorded(self.folder / "config.json", self.checkpoints())
        if old is not None:
            refuse_changes(self.folder, old, config)
        with self.written():
            self.sweep()
            self.settings = json.dumps(to_dict(config), indent=1)
            write_whole(self.folder / "config.json", self.settings)
        return [notice] if notice else []

    def best(self) -> Path:
        """The checkpoint to draw from: the best on held-out pairs if that was measured, else the newest."""
        chosen = self.named_best() or self.latest()
        if chosen is None:
            raise CheckpointError(f"{self.folder} holds no checkpoint. Is it a run folder, and did its training start?")
        return chosen


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint that a path names: itself, or the best of a run. Damaged ones are skipped with a warning.

    Raises CheckpointError if there is none. Files that only training needs are not checked.
    """
    folder = Path(path).expanduser()
    if (folder / "weights.safetensors").is_file():
        verify(folder.resolve(), _drawn_with)  # a link that the user typed is followed
        return folder
    run = Run(folder)
    first, damage = run.best(), list[str]()
    for checkpoint in [first, *(p for p in reversed(run.checkpoints()) if p != first)]:
        try:
            verify(checkpoint, _drawn_with)
        except CheckpointError as error:
            damage.append(str(error).rstrip("."))
            continue
        if damage:
            warnings.warn(f"{'; '.join(damage)}. Taking {checkpoint} instead.", stacklevel=2)
        return checkpoint
    raise CheckpointError(f"No checkpoint of {folder} is whole: {damage[0]}.")


def _drawn_with(name: str) -> bool:
    return not name.startswith(("optimizer/", "state/", "weights/", "networks/"))
