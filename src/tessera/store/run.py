"""A run folder: config, checkpoints, metrics. Every file in it is written atomically. It knows no training.

runs/birds/  config.json  metrics.jsonl  samples/  latest  best
             step-000500/{config.json, weights.safetensors, image_tokenizer/, text_tokenizer/, state/, optimizer/,
                          run.json, checksums.json}; with optim.ema weights.safetensors is the mean, and weights/
                          holds what training goes on from; networks/NAME/ has the parts of further networks
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from tessera.config import TrainConfig, to_dict
from tessera.errors import CheckpointError
from tessera.files import own
from tessera.files.atomic import sync, write_whole
from tessera.store.checkpoint import SETTINGS, seal, step_of, verify
from tessera.store.folder import RunFolder
from tessera.store.metrics import read_rows, write_rows
from tessera.store.settings import recorded, refuse_changes


class Run(RunFolder):
    """One run."""

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        self.metrics = self.folder / "metrics.jsonl"
        self.settings = ""

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

    def read_metrics(self) -> list[dict[str, float]]:
        """All rows, without damaged lines and lines that a kill cut off."""
        return read_rows(self.metrics)

    def forget_after(self, step: int) -> None:
        """Remove metrics beyond `step`; a resumed run writes them again."""
        with self.written():
            write_rows(self.metrics, [row for row in self.read_metrics() if row.get("step", 0) <= step])

    # Checkpoints.

    def checkpoints(self) -> list[Path]:
        """All paths with a checkpoint's name, oldest first. `verify` says which are whole, and refuses links."""
        return sorted((p for p in self.folder.glob("step-*") if step_of(p) >= 0), key=step_of)

    def latest(self) -> Path | None:
        """The newest checkpoint, whole or not."""
        return next(reversed(self.checkpoints()), None)

    def named_best(self) -> Path | None:
        """The checkpoint that the file `best` names, if it is one of this run."""
        try:
            name = (self.folder / "best").read_text("utf-8").strip()
        except (OSError, ValueError):
            return None
        return next((p for p in self.checkpoints() if p.name == name and p.is_dir() and not p.is_symlink()), None)

    def best(self) -> Path:
        """The checkpoint to draw from: the best on held-out pairs if that was measured, else the newest."""
        chosen = self.named_best() or self.latest()
        if chosen is None:
            raise CheckpointError(f"{self.folder} holds no checkpoint. Is it a run folder, and did its training start?")
        return chosen

    def save(self, step: int, write: Callable[[Path], None], keep: int, best: bool = False) -> Path:
        """Let `write` fill a checkpoint, rename it to its final name, and remove the old ones.

        Raises CheckpointError on a full or read-only disk; then the older checkpoints stay.
        """
        fresh = self.begin(step)
        with self.guarded(step):
            write(fresh)
        target = self.commit(step, best)
        self.prune(keep, step)
        return target

    def fresh(self, step: int) -> Path:
        """The temporary folder of a step's checkpoint."""
        return self.folder / f".step-{step:06d}"

    def begin(self, step: int) -> Path:
        with self.guarded(step):
            self.claim()
            own.remove(self.fresh(step))
            self.fresh(step).mkdir(parents=True)
        return self.fresh(step)

    def commit(self, step: int, best: bool = False) -> Path:
        """Write the checksums of a complete checkpoint and rename it to its final name."""
        fresh = self.fresh(step)
        target = self.folder / fresh.name[1:]
        with self.guarded(step):
            if self.settings:
                (fresh / SETTINGS).write_text(self.settings, "utf-8")
            seal(fresh)
            for path in [*fresh.rglob("*"), fresh]:
                sync(path)
            own.remove(target)  # the same step again: the same command with nothing left to do, or a damaged one
            fresh.rename(target)
            write_whole(self.folder / "latest", target.name)
            if best:
                write_whole(self.folder / "best", target.name)
            sync(self.folder)
        return target

    def prune(self, keep: int, step: int) -> None:
        """Remove all checkpoints up to a step but the newest `keep` and the best. Those beyond the step are damaged
        ones that the run skipped and will replace. Links are somebody else's, and stay."""
        best = self.named_best()
        with self.written():
            for old in [p for p in self.checkpoints() if step_of(p) <= step and not p.is_symlink()][:-keep]:
                if old != best:
                    own.remove(old)

    @contextmanager
    def guarded(self, step: int) -> Generator[None]:
        """Turn an error while a checkpoint is written into one sentence, and remove what was written."""
        try:
            yield
        except (OSError, SafetensorError, RuntimeError) as error:
            with suppress(OSError):
                own.remove(self.fresh(step))
            last = self.latest()
            raise CheckpointError(
                f"The checkpoint of step {step} cannot be written in {self.folder}: {error}. "
                f"The last one before it is {last.name if last else 'none'}. Make room and give the same command again."
            ) from error


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
