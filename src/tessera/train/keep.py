"""Where a run stands: saving by all ranks, beginning again, whether ranks still agree. It trains nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tessera.config import TrainConfig
from tessera.errors import CheckpointError, TesseraError
from tessera.models import saved
from tessera.state import read_state, write_state
from tessera.store import Run
from tessera.train.engine import Engine
from tessera.train.objectives import Objective
from tessera.train.optim import Schedule
from tessera.train.track import Tracker

SPOILED = 20
"""Steps in a row whose loss or gradient is not finite, after which a run gives up."""


@dataclass
class Position:
    """Where a run stands: all that a checkpoint remembers besides weights and optimiser."""

    step: int = 0
    elapsed: float = 0.0
    best: float = math.inf
    stale: int = 0
    spoiled: int = 0


def begin(objective: Objective, run: Run, tracker: Tracker, schedule: Schedule, at: Position) -> Path | None:
    """Fill the model from the newest checkpoint that is whole; returns it. A damaged one is named and passed over."""
    for checkpoint in reversed(run.checkpoints()):
        try:
            run.verify(checkpoint)
            saved.fill(objective.model, checkpoint)
            state = read_state(checkpoint / "state")
        except CheckpointError as error:
            tracker.notice(f"{checkpoint.name} is damaged ({error}); going back to the one before.")
            continue
        schedule.restore(state["schedule"])
        vars(at).update(state["at"])
        tracker.notice(f"Going on from step {at.step} of {run.folder}.")
        return checkpoint
    if run.checkpoints():
        raise CheckpointError(
            f"No checkpoint of {run.folder} is whole. Restore one from a backup, or give a new --out."
        )
    return None


class Keeper:
    """Saves checkpoints; where an engine writes in the background, they get their names when all is there."""

    def __init__(
        self, config: TrainConfig, objective: Objective, engine: Engine, run: Run, schedule: Schedule, at: Position,
        tracker: Tracker,
    ):  # fmt: skip
        self.config, self.objective, self.engine, self.run, self.schedule, self.at = (
            config, objective, engine, run, schedule, at,
        )  # fmt: skip
        self.tracker, self.last, self.epoch = tracker, -1, self._epoch(at.step)
        self.pending: Callable[[bool], bool] | None = None

    def save(self, best: bool = False) -> None:
        self.finish()
        first, step = self.engine.rank == 0, self.at.step
        weights = self.engine.weights()
        folder = self.run.begin(step) if first else self.run.fresh(step)
        self.engine.barrier()
        if first:
            with self.run.guarded(step):
                self.objective.save(folder, weights)
                write_state(folder / "state", {"schedule": self.schedule.state(), "at": asdict(self.at)})
        with self.run.guarded(step):
            wait = self.engine.save(folder / "optimizer")

        def commit(only_look: bool) -> bool:
            if only_look:
                return getattr(wait, "done", lambda: True)()
            wait()
            self.engine.barrier()
            if first:
                folder = self.run.commit(step, self.config.keep, best)
                if self._epoch(step) > self.epoch:  # an artifact for each epoch
                    self.epoch = self._epoch(step)
                    self.tracker.checkpoint(folder, step)
            self.engine.barrier()
            return True

        self.last, self.pending = step, commit
        if not hasattr(wait, "done"):
            self.finish()

    def _epoch(self, step: int) -> int:
        return step * self.config.optim.batch // max(len(self.objective.pairs), 1)

    def written(self) -> bool:
        """Whether something waits to get its name, and is all there on this rank."""
        return self.pending is not None and self.pending(True)

    def finish(self) -> None:
        if self.pending:
            pending, self.pending = self.pending, None
            pending(False)


def note_spoiled(at: Position, loss: float, norm: float, tracker: Tracker) -> None:
    """Count steps that were not taken because a number was not finite. Raises TesseraError after too many in a row."""
    if math.isfinite(loss) and math.isfinite(norm):
        at.spoiled = 0
        return
    at.spoiled += 1
    tracker.notice(f"Step {at.step}: the loss is {loss} and the gradient norm {norm}; the step was not taken.")
    if at.spoiled >= SPOILED:
        raise TesseraError(
            f"{SPOILED} steps in a row, to step {at.step}, had a loss or gradient that is not finite. The last "
            "checkpoint is good. Try a lower --optim.lr, a longer --optim.warmup, a smaller --optim.clip, or "
            "--machine.precision float32."
        )


def fingerprint(objective: Objective) -> float:
    """The same number for the same pairs in the same order."""
    digest = hashlib.blake2b(digest_size=6)
    for pair in objective.pairs:
        digest.update("\n".join((pair.key, *pair.captions)).encode("utf-8", "surrogateescape"))
    return float(int.from_bytes(digest.digest(), "big"))


def checksum(engine: Engine, objective: Objective) -> float:
    """A number that replicas share to the last bit; where weights are cut up there is nothing to compare."""
    if engine.world == 1 or not engine.replicated:
        return 0.0
    return float(sum(p.detach().double().sum() for p in objective.model.parameters()))
