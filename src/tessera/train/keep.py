"""Where a run stands: saving by all ranks, beginning again. It trains nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from tessera.config import TrainConfig
from tessera.config.merging import cast
from tessera.errors import CheckpointError, ConfigError, TesseraError
from tessera.models import saved
from tessera.store.checkpoint import step_of, verify
from tessera.store.position import Position, State
from tessera.store.run import Run
from tessera.store.state import Tree, read_state, write_state
from tessera.train.engines.protocol import Engine, Trainee
from tessera.train.moments import check
from tessera.train.objectives.protocol import Objective
from tessera.train.optim import Schedule
from tessera.train.replicas import together
from tessera.train.sharded import read_optimizer
from tessera.train.track import Tracker

Networks = Mapping[str, nn.Module]
Schedules = Mapping[str, Schedule]

SPOILED = 20
"""Steps in a row whose loss or gradient is not finite, after which a run gives up."""


def begin(
    objective: Objective, engine: Engine, run: Run, tracker: Tracker, schedules: Schedules, at: Position
) -> Path | None:
    """Fill the networks from the newest checkpoint that is whole; returns it. A damaged one is named and passed over.

    The first rank looks and the others follow, so that all begin at the same step.
    """
    found = together(engine, lambda: None if engine.rank else newest(objective.networks, run, tracker))
    step = engine.least(math.inf if engine.rank else float(found.at.step) if found else -1.0)
    if step < 0:
        return None
    checkpoint = run.folder / f"step-{int(step):06d}"
    state = together(engine, lambda: found or load(objective.networks, checkpoint))
    for schedule, halvings in zip(schedules.values(), (state.schedule, *state.others.values()), strict=True):
        schedule.restore(asdict(halvings))
    vars(at).update(vars(state.at))
    tracker.notice(f"Going on from step {at.step} of {run.folder}.")
    return checkpoint


def newest(networks: Networks, run: Run, tracker: Tracker) -> State | None:
    """Fill the networks from the newest checkpoint that is whole, and tell its state."""
    if (run.folder / "best").exists() and not run.named_best():
        tracker.notice(f"{run.folder / 'best'} does not name a checkpoint of this run; drawing takes the newest.")
    for checkpoint in reversed(run.checkpoints()):
        try:
            verify(checkpoint)
            return load(networks, checkpoint)
        except CheckpointError as error:
            tracker.notice(f"{str(error).rstrip('.')}. The checkpoint before it is taken.")
    if run.checkpoints():
        raise CheckpointError(
            f"No checkpoint of {run.folder} is whole. Restore one from a backup, or give a new --out."
        )
    return None


def load(networks: Networks, checkpoint: Path) -> State:
    """Fill the networks and tell the state. Raises CheckpointError where any part of the checkpoint, the optimisers'
    too, is missing, damaged, or of another model."""
    if not (checkpoint / "state").is_dir():
        raise CheckpointError(f"{checkpoint} is for drawing alone: `tessera push --training` sends what training needs")
    try:
        state: State = cast(read_state(checkpoint / "state"), State, "state")
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    if state.at.step != step_of(checkpoint):
        raise CheckpointError(f"{checkpoint} holds the state of step {state.at.step}")
    if [*networks][1:] != [*state.others]:
        raise CheckpointError(
            f"{checkpoint} is not one of {', '.join(networks)}: it has {[*state.others]} beside a model"
        )
    for network, home in zip(networks.values(), homes(networks), strict=True):
        memory_fits(network, checkpoint / home / "optimizer")
        if home:
            fill(network, checkpoint / home)
        else:
            saved.fill(network, checkpoint)
    return state


def homes(networks: Iterable[str]) -> list[str]:
    """Where in a checkpoint each network's parts lie: those of the first, which is drawn from, at its top."""
    return [f"networks/{name}/" if i else "" for i, name in enumerate(networks)]


def fill(network: nn.Module, home: Path) -> None:
    """Put in the weights of a network that is not drawn from, or their mean where it keeps one."""
    try:
        state = read_state(home / "weights")
        network.load_state_dict(state["mean"] or state["weights"])
    except saved.UNREADABLE as error:
        raise CheckpointError(f"{home} holds no readable weights: {error}") from error


def memory_fits(model: nn.Module, folder: Path) -> None:
    """Raises CheckpointError where an optimiser's memory cannot be read, or is that of another model's."""
    try:
        shapes = {name: p.shape for name, p in model.named_parameters()}
        for name, memory in read_optimizer(folder)["moments"].items():
            check(memory, name, shapes[name])
    except saved.UNREADABLE as error:
        raise CheckpointError(f"{folder} holds no readable optimiser state: {error}") from error
    except BaseException as error:  # what is raised for shards does not derive from Exception
        if type(error).__name__ != "CheckpointException":
            raise
        raise CheckpointError(f"{folder} holds no readable shards: {error}") from error


class Part(Protocol):
    """A part of a checkpoint: a folder that all ranks write together, and that each of them reads.

    What `save` returns ends when all of it is there; None says that it is there already.
    """

    def save(self, folder: Path) -> Future | None: ...

    def restore(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Weights:
    """The weights that training goes on from, as a part of a checkpoint."""

    engine: Engine
    trainee: Trainee
    drawn: bool
    """Whether the checkpoint has the mean of these weights at its top; that of others is kept here."""

    def save(self, folder: Path) -> None:
        average, mean = self.trainee.average, {}
        if average.decay and not self.drawn:
            with self.trainee.averaged():
                mean = {name: weight.clone() for name, weight in self.trainee.weights().items()}
        weights = self.trainee.weights()
        if self.engine.rank == 0:
            write_state(folder, {"weights": weights, "mean": mean, "steps": average.steps})

    def restore(self, folder: Path) -> None:
        if folder.is_dir():  # an imported run has none
            state = read_state(folder)
            self.trainee.load(state["weights"])
            self.trainee.average.steps = state["steps"]


def parts_of(engine: Engine) -> dict[str, Part]:
    """What training goes on from, by the folder in a checkpoint; the weights at its top are the objective's matter."""
    found: dict[str, Part] = {}
    for trainee, home in zip(engine.trainees.values(), homes(engine.trainees), strict=True):
        found[f"{home}optimizer"] = trainee
        if home or trainee.average.decay:
            found[f"{home}weights"] = Weights(engine, trainee, drawn=not home)
    return found


class Keeper:
    """Saves checkpoints; where an engine writes in the background, they get their names when all is there."""

    def __init__(
        self, config: TrainConfig, objective: Objective, engine: Engine, run: Run, schedules: Schedules, at: Position,
        tracker: Tracker,
    ):  # fmt: skip
        self.config, self.objective, self.engine, self.run, self.schedules, self.at = (
            config, objective, engine, run, schedules, at,
        )  # fmt: skip
        self.tracker, self.last, self.good, self.epoch = tracker, -1, -1, self._epoch(at.step)
        self.parts = parts_of(engine)
        self.writing: list[Future] = []
        self.commit: Callable[[], None] | None = None

    def begin(self, latest: Path | None) -> None:
        """Go on from the newest checkpoint, or make the first one, and forget what was told of later steps."""
        if latest:
            self.restore(latest)
        else:
            self.save()  # before the first step, so that a run that cannot save fails now
            self.finish()
        if self.engine.rank == 0:
            self.run.forget_after(self.at.step)

    def restore(self, checkpoint: Path) -> None:
        """What the networks did not need before they were placed."""
        for folder, part in self.parts.items():
            part.restore(checkpoint / folder)
        self.last = self.at.step

    def save(self, best: bool = False) -> None:
        self.finish()
        first, step = self.engine.rank == 0, self.at.step
        folder = self.run.begin(step) if first else self.run.fresh(step)
        self.engine.barrier()
        drawn = next(iter(self.engine.trainees.values()))
        with drawn.averaged():
            weights = drawn.weights()
            if first:
                with self.run.guarded(step):
                    self.objective.save(folder, weights)
                    write_state(folder / "state", self._state())
        with self.run.guarded(step):
            waits = [part.save(folder / name) for name, part in self.parts.items()]
        self.writing = [wait for wait in waits if wait]
        self.last, self.commit = step, lambda: self._commit(step, best)
        if not self.writing:
            self.finish()

    def _state(self) -> Tree:
        """As `State` has it."""
        (_, first), *others = ((name, schedule.state()) for name, schedule in self.schedules.items())
        return {"schedule": first, "at": asdict(self.at), **({"others": dict(others)} if others else {})}

    def _commit(self, step: int, best: bool) -> None:
        self.engine.barrier()
        if self.engine.rank == 0:
            folder = self.run.commit(step, best)
            self.run.prune(max(self.config.keep, 2), step)  # the one before is known to be good, this one not yet
            if self._epoch(step) > self.epoch:  # an artifact for each epoch
                self.epoch = self._epoch(step)
                self.tracker.checkpoint(folder, step)
        self.engine.barrier()

    def taken(self) -> None:
        """Note that a step could be taken from the newest checkpoint, which is known to be good by that."""
        if self.commit is None and self.good != self.last:
            self.good = self.last
            self.close()

    def end(self) -> int:
        """Save what is not saved, where it is good, and wait until it is there; returns the last step saved."""
        if self.last != self.at.step and not self.at.spoiled:
            self.save()
        self.finish()
        if spoiled := self.at.spoiled:
            self.tracker.notice(
                f"The last {spoiled} steps were not taken; step-{self.last:06d} is the last checkpoint."
            )
        return self.last

    def close(self) -> None:
        """Leave as many checkpoints as are wanted."""
        self.finish()
        if self.engine.rank == 0:
            self.run.prune(self.config.keep, self.at.step)

    def _epoch(self, step: int) -> int:
        return step * self.config.optim.batch // max(len(self.objective.pairs), 1)

    def written(self) -> bool:
        """Whether something waits to get its name, and is all there on this rank."""
        return self.commit is not None and all(wait.done() for wait in self.writing)

    def finish(self) -> None:
        """Wait for what is still being written, and give it its name."""
        for wait in self.writing:
            wait.result()
        self.writing, commit, self.commit = [], self.commit, None
        if commit:
            commit()


def note_spoiled(at: Position, loss: float, norm: float, tracker: Tracker, keeper: Keeper) -> None:
    """Count steps that were not taken because a number was not finite. Raises TesseraError after too many in a row."""
    if math.isfinite(loss) and math.isfinite(norm):
        at.spoiled = 0
        keeper.taken()
        return
    at.spoiled += 1
    tracker.notice(f"Step {at.step}: the loss is {loss} and the gradient norm {norm}; the step was not taken.")
    if at.spoiled >= SPOILED:
        last, good = f"step-{keeper.last:06d}", f"step-{keeper.good:06d}"
        newest = f"No step could be taken from the newest checkpoint, {last}."
        raise TesseraError(
            f"{SPOILED} steps in a row, to step {at.step}, had a loss or gradient that is not finite. "
            f"{newest if keeper.good < 0 else f'The last good checkpoint is {good}.'} Begin anew in another --out with "
            "a lower --optim.lr, a longer --optim.warmup, a smaller --optim.clip, or --machine.precision float32."
        )
