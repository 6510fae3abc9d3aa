"""The one training loop. It knows no engine, no model and no data, only their seams."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tessera.config import TrainConfig, seconds
from tessera.data.batches import Batch, WorkerDied
from tessera.store.position import Position
from tessera.store.run import Run
from tessera.train.engines.protocol import Engine
from tessera.train.keep import Keeper, begin, note_spoiled
from tessera.train.look import Preview, held_out, models, move, show, within
from tessera.train.memory import in_memory
from tessera.train.objectives.protocol import Objective, Parts
from tessera.train.optim import Schedule, optimizer_of
from tessera.train.replicas import checksum, fingerprint
from tessera.train.signals import Interrupted, interruptible
from tessera.train.track import Tracker, Window
from tessera.train.work import matrix_rate, training_flops


def train(
    config: TrainConfig, objective: Objective, engine: Engine, run: Run, tracker: Tracker, preview: Preview
) -> Position:
    """Train to the end, or go on from the newest checkpoint. Returns where it stopped.

    Data order, augmentation and noise are functions of (seed, step, rank), so the resumed run is the uninterrupted one.
    Raises Interrupted where a signal asked to stop and everything is saved.
    """
    with interruptible() as interrupted:
        training = Training(config, objective, engine, run, tracker, preview, interrupted)
        training.begin()
        while training.goes_on() and (batch := training.take()) is not None:
            training.step(batch)
            training.look()
        training.end()
        return training.at


class Training:
    """One training in five parts: `begin`; `take` a batch, `step` and `look` for each step; `end`."""

    def __init__(
        self, config: TrainConfig, objective: Objective, engine: Engine, run: Run, tracker: Tracker, preview: Preview,
        interrupted: Callable[[], bool],
    ):  # fmt: skip
        self.config, self.objective, self.engine, self.run = config, objective, engine, run
        self.tracker, self.preview, self.interrupted = tracker, preview, interrupted
        self.schedules = {name: Schedule(objective.optim(name)) for name in objective.networks}
        self.at, self.budget, self.accumulate = Position(), seconds(config.budget), config.optim.accumulate
        self.stopped = self.due = self.collapsed = False

    # 1. Begin: fill the networks, place them on the machine, and save before the first step.

    def begin(self) -> None:
        objective, engine, at = self.objective, self.engine, self.at
        latest = begin(objective, engine, self.run, self.tracker, self.schedules, at)
        for name, network in objective.networks.items():
            optim = objective.optim(name)
            engine.add(network, optimizer_of(optim), optim.clip, optim.ema, name)
        self.keeper = Keeper(self.config, objective, engine, self.run, self.schedules, at, self.tracker)
        self.keeper.begin(latest)
        engine.assert_replicas_equal(fingerprint(objective), "the data")
        engine.barrier()
        counts = {"pairs": len(objective.pairs), "held": len(objective.held), "skipped": objective.skipped}
        self.tracker.log({"step": at.step, **counts})
        objective.place(engine.device)
        self.batches = objective.batches(at.step, engine.rank, engine.world)
        self.began = time.monotonic() - at.elapsed
        self.window = Window(at.step, training_flops(objective.model) / matrix_rate(engine) / engine.world)

    def done(self) -> float:
        """Share of the training that lies behind: by steps, or by time where that runs out first."""
        at, steps = self.at, self.config.steps
        return min(1.0, max(at.step / steps if steps else 1.0, at.elapsed / self.budget))

    def goes_on(self) -> bool:
        return not (self.done() >= 1 or self.stopped or self.collapsed or 0 < self.config.patience <= self.at.stale)

    # 2. Take a batch, with the noise of this step.

    def take(self) -> Batch | None:
        """The next batch; None where whatever was to stop this process ended its worker first."""
        torch.manual_seed(step_seed(self.config.seed, self.engine.rank, self.at.step))
        waiting = time.monotonic()
        try:
            batch = self.objective.chance(move(next(self.batches), self.engine.device))
        except WorkerDied:
            if not self.interrupted() or self.engine.world > 1:
                raise
            self.stopped = True
            return None
        self.window.waited += time.monotonic() - waiting
        return batch

    # 3. Step: the gradient, the weights moved by it, and what all ranks must agree on, in one message.

    def step(self, batch: Batch) -> None:
        at, engine, keeper = self.at, self.engine, self.keeper
        rates = {name: schedule.rate(at.step, self.done()) for name, schedule in self.schedules.items()}
        work = lambda count: forward_backward(self.objective, engine, batch, count, self.done())
        (loss, parts), self.accumulate = in_memory(work, len(batch.tokens), self.accumulate, engine.redo)
        norm = math.hypot(*map(float, engine.step(rates).values()))
        agreed = [loss, *parts.values(), time.monotonic() - self.began, self.interrupted(), keeper.written()]
        agreed = torch.stack([torch.as_tensor(x, dtype=torch.float64).cpu() for x in agreed])
        *means, at.elapsed, stop, written = engine.all_reduce_mean(agreed).tolist()
        at.step += 1
        self.rate = next(iter(rates.values()))
        note_spoiled(at, means[0], norm, self.tracker, keeper)
        self.stopped = stop > 0 and not at.spoiled  # not before there is something good to save
        self.window.add(means[0], dict(zip(parts, means[1:], strict=True)), norm)
        if written == 1:
            keeper.finish()

    # 4. Look: log, measure the held-out loss, draw, save.

    def look(self) -> None:
        config, objective, engine, at = self.config, self.objective, self.engine, self.at
        now = lambda every: every and (at.step % every == 0 or self.done() >= 1)
        if now(config.log_every):
            engine.assert_replicas_equal(checksum(engine, objective), "the weights")
            self.tracker.log(self.window.row(at, self.rate, self.done(), config.optim.batch))
        improved = False
        if objective.held and now(config.valid_every):
            improved, self.collapsed = held_out(config, objective, engine, at, self.schedules, self.tracker)
        if now(config.preview_every):
            show(self.preview, objective, engine, self.run, at.step, self.tracker)
        self.due = self.due or improved or bool(now(config.save_every))
        if self.due and not at.spoiled:
            self.keeper.save(best=improved)
            self.due = False

    # 5. End: save what is not saved, and say how to go on.

    def end(self) -> None:
        last = self.keeper.end()
        if self.stopped or self.interrupted():
            raise Interrupted(f"Interrupted at step {last}; everything is saved. The same command goes on from there.")
        if not self.at.spoiled:
            self.keeper.close()


def forward_backward(
    objective: Objective, engine: Engine, batch: Batch, accumulate: int, done: float
) -> tuple[Tensor, Parts]:
    """One step's gradients, in `accumulate` micro-batches; returns this rank's mean loss, summed over networks, and its
    parts. A loss that is not finite makes its gradient NaN, by which all ranks learn of it before any network moves."""
    losses, parts = [], []
    micros = list(zip(*(part.chunk(accumulate) if len(part) else [part] * accumulate for part in batch), strict=True))
    for i, micro in enumerate(micros):
        with within((engine.autocast(), *(t.micro(i == len(micros) - 1) for t in engine.trainees.values()))):
            each, part = objective.losses(models(engine), Batch(*micro), done)
            for name, loss in each.items():
                engine.trainees[name].backward(loss * (1 + 0 * loss.detach()) / len(micros))
        losses.append(torch.stack([loss.detach() for loss in each.values()]).sum())
        parts.append({k: v.detach() for k, v in ({**each, **part} if len(each) > 1 else part).items()})
    return torch.stack(losses).mean(), {k: torch.stack([p[k] for p in parts]).float().mean() for k in parts[0]}


def step_seed(seed: int, rank: int, step: int) -> int:
    """A different stream of noise for every (seed, rank, step)."""
    return ((seed * 1_000_003 + rank) * 1_000_003 + step) % 2**63
