"""A run folder: config, checkpoints, metrics. Whatever is in it was written whole or not at all. It knows no training.

runs/birds/  config.json  metrics.jsonl  samples/  latest  best
             step-000500/{config.json, weights.safetensors, image_tokenizer/, text_tokenizer/, state/}
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tessera.config import TrainConfig, to_dict, train_config
from tessera.errors import CheckpointError, ConfigError
from tessera.files.atomic import write_whole
from tessera.settings import differences

MAY_CHANGE = (
    "steps:", "budget:", "save_every:", "keep:", "log_every:", "valid_every:", "preview_every:", "patience:", "out:",
    "data.workers:", "optim.accumulate:", "machine.", "track.",
)  # fmt: skip
"""Settings that a run may be continued with."""


class Run:
    """One run's folder."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.metrics = self.folder / "metrics.jsonl"
        self.samples = self.folder / "samples"

    def exists(self) -> bool:
        return (self.folder / "config.json").is_file()

    def config(self) -> TrainConfig:
        """The settings of the run. Raises CheckpointError where the folder is no run."""
        try:
            return train_config(json.loads((self.folder / "config.json").read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.folder} is no run folder: its config.json cannot be read ({error})."
            ) from error

    def make(self) -> None:
        """Create the folder, so that a place that cannot be written is known before any work."""
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / ".writable", b"")
            (self.folder / ".writable").unlink()
        except OSError as error:
            raise CheckpointError(f"The run folder {self.folder} cannot be written: {error}. Set --out.") from error

    def open(self, config: TrainConfig) -> None:
        """Begin the run, or go on with it. Raises ConfigError where the folder holds a run with other settings."""
        if self.exists():
            old = self.config()
            changed = [d for d in differences(old, config) if not d.startswith(MAY_CHANGE)]
            if not old.data.path:  # imported, and not yet trained here: only the model is given
                changed = [d for d in changed if d.startswith("model.")]
            if changed:
                raise ConfigError(
                    f"{self.folder} holds a run with other settings ({'; '.join(changed[:4])}). "
                    "Give the same settings to go on with it, or another --out to begin a new one."
                )
        self.make()
        write_whole(self.folder / "config.json", json.dumps(to_dict(config), indent=1).encode())
        for left_over in self.folder.glob(".*"):  # of a process that was killed while it wrote
            if left_over.is_dir():
                shutil.rmtree(left_over)
            else:
                left_over.unlink()

    # Checkpoints.

    def checkpoints(self) -> list[Path]:
        """Oldest first. A checkpoint under its own name is whole: it was renamed only when it was."""
        return sorted(p for p in self.folder.glob("step-*") if (p / "weights.safetensors").is_file())

    def latest(self) -> Path | None:
        return next(reversed(self.checkpoints()), None)

    def best(self) -> Path:
        """The checkpoint to draw from: the best on held-out pairs where that was measured, else the newest."""
        pointer = self.folder / "best"
        named = self.folder / pointer.read_text().strip() if pointer.is_file() else None
        chosen = named if named and named.is_dir() else self.latest()
        if chosen is None:
            raise CheckpointError(f"{self.folder} holds no checkpoint. Is it a run folder, and did its run begin?")
        return chosen

    def save(self, step: int, write: Callable[[Path], None], keep: int, best: bool = False) -> Path:
        """Let `write` fill a checkpoint, then give it its name; afterwards remove the old ones.

        Raises CheckpointError on a full or read-only disk; the checkpoints before it stay as they are.
        """
        fresh = self.begin(step)
        with self.guarded(step):
            write(fresh)
        return self.commit(step, keep, best)

    def fresh(self, step: int) -> Path:
        """Where the checkpoint of a step is written before it has its name."""
        return self.folder / f".step-{step:06d}"

    def begin(self, step: int) -> Path:
        with self.guarded(step):
            shutil.rmtree(self.fresh(step), ignore_errors=True)
            self.fresh(step).mkdir(parents=True)
        return self.fresh(step)

    def commit(self, step: int, keep: int, best: bool = False) -> Path:
        """Give a checkpoint that is all there its name, then remove old ones, but for the best."""
        fresh = self.fresh(step)
        target = self.folder / fresh.name[1:]
        with self.guarded(step):
            for path in [*fresh.rglob("*"), fresh]:
                _sync(path)
            if target.exists():
                shutil.rmtree(target)  # the same step again: the same command with nothing left to do
            fresh.rename(target)
            write_whole(self.folder / "latest", target.name.encode())
            if best:
                write_whole(self.folder / "best", target.name.encode())
            _sync(self.folder)
        protected = {target, self.best()}
        for old in self.checkpoints()[:-keep]:
            if old not in protected:
                shutil.rmtree(old)
        return target

    @contextmanager
    def guarded(self, step: int) -> Iterator[None]:
        """Turn what goes wrong in writing a checkpoint into a sentence, and clear it away."""
        try:
            yield
        except (OSError, SafetensorError, RuntimeError) as error:
            shutil.rmtree(self.fresh(step), ignore_errors=True)
            last = self.latest()
            raise CheckpointError(
                f"The checkpoint of step {step} cannot be written in {self.folder}: {error}. "
                f"The last good one is {last.name if last else 'none'}; make room and give the same command again."
            ) from error

    def verify(self, checkpoint: Path) -> None:
        """Raises CheckpointError where a file of a checkpoint is cut off, unreadable or missing."""
        try:
            json.loads((checkpoint / "config.json").read_text("utf-8"))
            for file in checkpoint.rglob("*.safetensors"):
                with safe_open(file, "pt"):  # compares what the header promises with the size of the file
                    pass
            for file in checkpoint.rglob("state.json"):
                json.loads(file.read_text("utf-8"))
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(str(error)) from error

    # Metrics.

    def forget_after(self, step: int) -> None:
        """Drop metrics beyond `step`: a resumed run writes them again."""
        rows = [row for row in self.read_metrics() if row.get("step", 0) <= step]
        write_whole(self.metrics, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """All rows; a last line that was cut off by a kill is left out."""
        rows = []
        for line in self.metrics.read_text().splitlines() if self.metrics.is_file() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint that a path names: itself, or the best of the run. Raises CheckpointError where there is none."""
    folder = Path(path).expanduser()
    return folder if (folder / "weights.safetensors").is_file() else Run(folder).best()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
