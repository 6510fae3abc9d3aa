"""A run's folder on the disk: marked as ours, locked, cleaned; rows of metrics; checkpoints whole or not at all; and
what is said when the disk fails. It does not know what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from tessera.errors import CheckpointError, DataError
from tessera.files import own
from tessera.files.atomic import sync, write_whole
from tessera.files.claim import Lock, claim
from tessera.files.regular import read_regular
from tessera.store.checkpoint import SETTINGS, seal, step_of
from tessera.store.metrics import read_rows, write_rows
from tessera.store.settings import is_run


class RunFolder:
    """The place of one run and its checkpoints; `Run` says what they mean."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.metrics, self.samples = self.folder / "metrics.jsonl", self.folder / "samples"
        self.lock = Lock(self.folder)
        self.settings = ""  # what each checkpoint tells of the run that wrote it

    def claim(self, began: Callable[[Path], bool] = lambda folder: False) -> None:
        """Mark the folder, or accept one that Tessera created. `began` recognises other folders of ours than runs."""
        claim(self.folder, "run", lambda folder: is_run(folder) or began(folder))

    def make(self, began: Callable[[Path], bool] = lambda folder: False) -> None:
        """Create the folder, or accept one that Tessera created. A folder that cannot be written, or is not ours, is
        refused before any work."""
        self.claim(began)
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

    def sweep(self) -> None:
        """Remove what a killed process left."""
        for folder in (self.folder, self.samples):
            own.sweep(folder, locked=self.lock.held)
        for left_over in self.folder.glob(".step-*"):
            if left_over.name[1:].removeprefix("step-").isdecimal():
                own.remove(left_over)

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

    def read_metrics(self) -> list[dict[str, float]]:
        """All rows, without damaged lines and lines that a kill cut off."""
        return read_rows(self.metrics)

    def forget_after(self, step: int) -> None:
        """Remove metrics beyond `step`; a resumed run writes them again."""
        with self.written():
            write_rows(self.metrics, [row for row in self.read_metrics() if row.get("step", 0) <= step])

    def begin_again(self) -> None:
        """Forget all that was learned: every checkpoint, row of metrics and setting."""
        with self.written():
            for path in [
                *self.checkpoints(),
                self.folder / "config.json",
                self.folder / "best",
                self.folder / "latest",
            ]:
                own.remove(path)
        self.forget_after(-1)

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
            name = read_regular(self.folder / "best", own.LONGEST).decode("utf-8").strip()
        except (DataError, ValueError):
            return None
        return next((p for p in self.checkpoints() if p.name == name and p.is_dir() and not p.is_symlink()), None)

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
