"""A run's folder as a place: marked as ours, locked, cleaned, and what is said when the disk fails. It knows no
checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from tessera.errors import CheckpointError
from tessera.files import own
from tessera.files.atomic import write_whole
from tessera.files.claim import Lock, claim
from tessera.store.settings import is_run


class RunFolder:
    """The place of one run; `Run` adds what stands in it."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.samples = self.folder / "samples"
        self.lock = Lock(self.folder)

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
