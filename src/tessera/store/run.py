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

from tessera.config import TrainConfig, to_dict, train_config
from tessera.config.merging import differences, read_json
from tessera.errors import CheckpointError, ConfigError
from tessera.files import own
from tessera.files.atomic import sync, write_whole
from tessera.files.claim import Lock, claim
from tessera.store.checkpoint import SETTINGS, seal, step_of, verify

MAY_CHANGE = (
    "steps:", "budget:", "save_every:", "keep:", "log_every:", "valid_every:", "preview_every:", "patience:", "out:",
    "data.workers:", "optim.accumulate:", "machine.", "track.",
)  # fmt: skip
"""Settings that may change when a run is resumed."""


class Run:
    """One run's folder."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.metrics = self.folder / "metrics.jsonl"
        self.samples = self.folder / "samples"
        self.lock = Lock(self.folder)
        self.settings = ""

    def exists(self) -> bool:
        return (self.folder / "config.json").is_file()

    def config(self) -> TrainConfig:
        """The settings of the run. Raises CheckpointError if the folder is not a run."""
        config, _ = self._recorded()
        if config is None:
            raise CheckpointError(f"{self.folder} is not a run folder: it holds no readable config.json.")
        return config

    def make(self, began: Callable[[Path], bool] = lambda folder: False) -> None:
        """Create the folder, or accept one that Tessera created. A folder that cannot be written, or is not ours, is
        refused before any work. `began` recognises other folders of ours than runs."""
        claim(self.folder, "run", lambda folder: _began(folder) or began(folder))
        with self.written():
            self.samples.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / own.MARKER, (self.folder / own.MARKER).read_bytes())

    @contextmanager
    def held(self, began: Callable[[Path], bool] = lambda folder: False) -> Generator[None]:
        """Make the folder and lock it. Raises ConfigError that names the process that holds it.

        Inside another `held` of the same Run it is locked already.
        """
        self.make(began)
        if self.lock.held:
            yield
            return
        self.lock.acquire()
        try:
            yield
        finally:
            self.lock.release()

    def open(self, config: TrainConfig) -> list[str]:
        """Start or resume the run. Returns notices for the user.

        Raises ConfigError if the folder holds a run with other settings.
        """
        self.make()
        old, notice = self._recorded()
        if old is not None:
            changed = [d for d in differences(old, config) if not d.startswith(MAY_CHANGE)]
            if not old.data.path:  # imported, and not yet trained here: only the model is given
                changed = [d for d in changed if d.startswith("model.")]
            if changed:
                raise ConfigError(
                    f"{self.folder} holds a run with other settings ({'; '.join(changed[:4])}). "
                    "Give the same settings to resume it, or another --out to start a new run."
                )
        with self.written():
            for folder in (self.folder, self.samples):
                own.sweep(folder, locked=self.lock.held)
            for left_over in self.folder.glob(".step-*"):
                if left_over.name[1:].removeprefix("step-").isdecimal():
                    own.remove(left_over)
            self.settings = json.dumps(to_dict(config), indent=1)
            write_whole(self.folder / "config.json", self.settings)
        return [notice] if notice else []

    def _recorded(self) -> tuple[TrainConfig | None, str]:
        """The settings in config.json, or else those in the newest checkpoint that has them, with a notice about that.
        Raises CheckpointError if there are checkpoints and none of them has settings."""
        path = self.folder / "config.json"
        try:
            return _settings(path), ""
        except CheckpointError as error:
            wrong = f"{path} is missing" if not path.exists() else str(error).rstrip(".")
        for checkpoint in reversed(self.checkpoints()):
            with suppress(CheckpointError):
                verify(checkpoint, lambda name: name == SETTINGS)
                return _settings(checkpoint / SETTINGS), f"{wrong}; the settings are those of {checkpoint.name}."
        if self.checkpoints():
            raise CheckpointError(
                f"{wrong}, and no checkpoint holds its settings, so they cannot be compared. "
                "Restore config.json, or give another --out to start a new run."
            )
        return None, f"{wrong}; the run starts from the beginning." if path.exists() else ""

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
            claim(self.folder, "run", _began)
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

    @contextmanager
    def written(self) -> Generator[None]:
        """Turn an error of the disk with other files of the run into one sentence."""
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"The run folder {self.folder} cannot be written: {error}. Make room and give the same command again, "
                "or set --out."
            ) from error

    # Metrics.

    def forget_after(self, step: int) -> None:
        """Remove metrics beyond `step`; a resumed run writes them again."""
        rows = [row for row in self.read_metrics() if row.get("step", 0) <= step]
        with self.written():
            write_whole(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))

    def read_metrics(self) -> list[dict[str, float]]:
        """All rows, without damaged lines and lines that a kill cut off."""
        rows: list[dict[str, float]] = []
        for line in self.metrics.read_bytes().split(b"\n") if self.metrics.is_file() else []:
            with suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict) and all(isinstance(v, int | float) for v in row.values()):  # pyright: ignore
                    rows.append(row)  # pyright: ignore[reportUnknownArgumentType]
        return rows


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


def _began(folder: Path) -> bool:
    """Whether this is the run folder of a release without markers."""
    try:
        _settings(folder / "config.json")
    except CheckpointError:
        return False
    return True


def _settings(path: Path) -> TrainConfig:
    try:
        return train_config(read_json(path, dict))
    except (ConfigError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} does not hold a run's settings: {error}") from error
