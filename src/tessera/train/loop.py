"""The one training loop. It knows no engine, no model and no data, only their seams."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tessera.config import TrainConfig, seconds
from tessera.data.batches import Batch, WorkerDied
from tessera.machine.device import out_of_memory, release
from tessera.store.position import Position
from tessera.store.run import Run
from tessera.train.engines.protocol import Engine
from tessera.train.keep import Keeper, begin, checksum, fingerprint, note_spoiled
from tessera.train.objectives.protocol import Objective, Parts
from tessera.train.optim import Schedule, optimizer_of
from tessera.train.plan import more_parts
from tessera.train.signals import Interrupted, interruptible
from tessera.train.track import Tracker, Window
from tessera.train.work import matrix_rate, training_flops

Preview = Callable[[Objective, Path], str]
"""Given the objective in eval mode and a PNG's path, show what the model can do by now; returns the captions in it."""


def train(
    config: TrainConfig, objective: Objective, engine: Engine, run: Run, tracker: Tracker, preview: Preview
) -> Position:
    """Train to the end, or go on from the newest checkpoint. Returns where it stopped.

    Data order, augmentation and noise are functions of (seed, step, rank), so the resumed run is the uninterrupted one.
    Raises Interrupted where a signal asked to stop and everything is saved.
    """
    with interruptible() as interrupted:
        return _train(config, objective, engine, run, tracker, preview, interrupted)


def _train(
    config: TrainConfig, objective: Objective, engine: Engine, run: Run, tracker: Tracker, preview: Preview,
    interrupted: Callable[[], bool],
) -> Position:  # fmt: skip
    schedule, at, budget = Schedule(config.optim), Position(), seconds(config.budget)
    latest = begin(objective, engine, run, tracker, schedule, at)
    engine.prepare(objective.model, optimizer_of(config.optim))
    keeper = Keeper(config, objective, engine, run, schedule, at, tracker)
    if latest:
        engine.restore(latest)
        keeper.last = at.step
    else:
        keeper.save()  # before the first step, so that a run that cannot save fails now
        keeper.finish()
    if engine.rank == 0:
        run.forget_after(at.step)
    engine.same(fingerprint(objective), "the data")
    engine.barrier()
    counts = {"pairs": len(objective.pairs), "held": len(objective.held), "skipped": objective.skipped}
    tracker.log({"step": at.step, **counts})
    objective.place(engine.device)
    batches = objective.batches(at.step, engine.rank, engine.world)
    began = time.monotonic() - at.elapsed
    window = Window(at.step, training_flops(objective.model) / matrix_rate(engine) / engine.world)
    stopped, due, accumulate = False, False, config.optim.accumulate

    def done() -> float:
        """Share of the training that lies behind: by steps, or by time where that runs out first."""
        return min(1.0, max(at.step / config.steps if config.steps else 1.0, at.elapsed / budget))

    def held_out() -> bool:
        """Measure the held-out loss; returns whether it is the best so far."""
        values = evaluate(objective, engine)
        tracker.log({"step": at.step, "elapsed": at.elapsed, **{f"held_{k}": v for k, v in values.items()}})
        schedule.observe(values["loss"])
        improved = values["loss"] < at.best and not at.spoiled
        at.best, at.stale = (values["loss"], 0) if improved else (at.best, at.stale + 1)
        return improved

    over = done() >= 1
    while not over and not stopped and not (config.patience and at.stale >= config.patience):
        torch.manual_seed(step_seed(config.seed, engine.rank, at.step))
        rate = schedule.rate(at.step, done())
        waiting = time.monotonic()
        try:
            batch = objective.chance(move(next(batches), engine.device))
        except WorkerDied:
            if not interrupted() or engine.world > 1:
                raise
            stopped = True  # what was to stop this process ended its worker first
            break
        window.waited += time.monotonic() - waiting
        (loss, parts), accumulate = in_memory(objective, engine, batch, accumulate, done())
        norm = engine.step(config.optim.clip, rate)
        # What all ranks must agree on, in one message.
        agreed = [loss, *parts.values(), time.monotonic() - began, interrupted(), keeper.written()]
        agreed = engine.mean(torch.stack([torch.as_tensor(x, dtype=torch.float64).cpu() for x in agreed]))
        *means, at.elapsed, stop, written = agreed.tolist()
        at.step += 1
        over = done() >= 1
        note_spoiled(at, means[0], float(norm), tracker, keeper)
        stopped = stop > 0 and not at.spoiled  # not before there is something good to save
        window.add(means[0], dict(zip(parts, means[1:], strict=True)), float(norm))
        if written == 1:
            keeper.finish()
        if at.step % config.log_every == 0 or over:
            engine.same(checksum(engine, objective), "the weights")
            tracker.log(window.row(at, rate, done(), config.optim.batch))
        improved = False
        if objective.held and config.valid_every and (at.step % config.valid_every == 0 or over):
            improved = held_out()
        if config.preview_every and (at.step % config.preview_every == 0 or over):
            show(preview, objective, engine, run, at.step, tracker)
        due = due or improved or at.step % config.save_every == 0 or over
        if due and not at.spoiled:
            keeper.save(best=improved)
            due = False
    if keeper.last != at.step and not at.spoiled:
        keeper.save()
    keeper.finish()
    if at.spoiled:
        tracker.notice(f"The last {at.spoiled} steps were not taken; step-{keeper.last:06d} is the last checkpoint.")
    if stopped or interrupted():
        raise Interrupted(
            f"Interrupted at step {keeper.last}; everything is saved. The same command goes on from there."
        )
    if not at.spoiled:
        keeper.close()
    return at


def in_memory(
    objective: Objective, engine: Engine, batch: Batch, accumulate: int, done: float
) -> tuple[tuple[Tensor, Parts], int]:
    """`forward_backward`, with twice the micro-batches and the same arithmetic where memory runs out; and how many it
    took. Only one process can do that: others would wait for the one that failed."""
    noise = torch.get_rng_state()
    while True:
        try:
            return forward_backward(objective, engine, batch, accumulate, done), accumulate
        except (RuntimeError, MemoryError) as error:
            more = more_parts(len(batch.tokens), accumulate)
            if not out_of_memory(error) or not more or not engine.redo():
                raise
            error.__traceback__ = None  # it holds what must be freed
        warnings.warn(f"Memory ran out with {accumulate} micro-batches; going on with {more}.", stacklevel=2)
        accumulate = more
        release()
        torch.set_rng_state(noise)


def forward_backward(
    objective: Objective, engine: Engine, batch: Batch, accumulate: int, done: float
) -> tuple[Tensor, Parts]:
    """One step's gradient, in `accumulate` micro-batches; returns this rank's mean loss and its parts."""
    losses, parts = [], []
    micros = list(zip(*(part.chunk(accumulate) if len(part) else [part] * accumulate for part in batch), strict=True))
    for i, micro in enumerate(micros):
        with engine.micro(last=i == len(micros) - 1):
            loss, part = objective.loss(engine.model, Batch(*micro), done)
            engine.backward(loss / len(micros))
        losses.append(loss.detach())
        parts.append({k: v.detach() for k, v in part.items()})
    return torch.stack(losses).mean(), {k: torch.stack([p[k] for p in parts]).float().mean() for k in parts[0]}


@torch.no_grad()
def evaluate(objective: Objective, engine: Engine) -> dict[str, float]:
    """Mean held-out losses over every held-out pair; ranks share the batches."""
    engine.model.eval()
    totals: dict[str, float] = {}
    count = 0
    for batch, share in objective.held_batches(engine.rank, engine.world):
        size = max(len(batch.pixels), len(batch.codes)) * share
        with engine.micro(last=True):
            values = objective.held_loss(engine.model, move(batch, engine.device))
        totals = {k: totals.get(k, 0.0) + float(v) * size for k, v in values.items()}
        count += size
    engine.model.train()
    *sums, number = engine.mean(torch.tensor([*totals.values(), count], dtype=torch.float64)).tolist()
    return {k: s / number for k, s in zip(totals, sums, strict=True)}


@torch.no_grad()
def show(preview: Preview, objective: Objective, engine: Engine, run: Run, step: int, tracker: Tracker) -> None:
    """The first rank draws, with a model that it can call alone."""
    reader, own = engine.reader(), objective.model
    if engine.rank == 0:
        objective.model, path = reader.eval(), run.samples / f"step-{step:06d}.png"
        try:
            with run.written():
                captions = preview(objective, path)
            codes = objective.held_codes()
        finally:
            objective.model = own
        if path.is_file():
            tracker.picture("samples", path, step, captions)
        if codes and objective.image:
            counts = torch.bincount(torch.cat(codes).flatten().cpu(), minlength=objective.image.vocab)
            tracker.histogram("codes", counts.tolist(), step)
    own.train()
    engine.barrier()


def move(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(part.to(device, non_blocking=True) for part in batch))


def step_seed(seed: int, rank: int, step: int) -> int:
    """A different stream of noise for every (seed, rank, step)."""
    return ((seed * 1_000_003 + rank) * 1_000_003 + step) % 2**63
