"""The one training loop. It knows no engine, no model and no data, only their seams."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from tessera.config import TrainConfig, seconds
from tessera.data.batches import Batch
from tessera.errors import TesseraError
from tessera.models import saved
from tessera.store import Run, read_state, write_state
from tessera.train.engine import Engine
from tessera.train.objectives import Objective, Parts
from tessera.train.optim import Schedule, optimizer_of
from tessera.train.track import Tracker

Preview = Callable[[Objective, Path], None]
"""Given the objective in eval mode and a PNG's path, show what the model can do by now."""

LOG_EVERY = 10


@dataclass
class Position:
    """Where a run stands: all that a checkpoint remembers besides weights and optimiser."""

    step: int = 0
    elapsed: float = 0.0
    best: float = math.inf
    stale: int = 0


def train(
    config: TrainConfig, objective: Objective, engine: Engine, run: Run, tracker: Tracker, preview: Preview
) -> Position:
    """Train to the end, or go on from the newest checkpoint. Returns where it stopped.

    Data order, augmentation and noise are functions of (seed, step), so the resumed run is the uninterrupted one.
    """
    engine.prepare(objective.model, optimizer_of(config.optim))
    schedule, at, budget = Schedule(config.optim), Position(), seconds(config.budget)

    def save(best: bool = False) -> None:
        def write(folder: Path) -> None:
            objective.save(folder)
            write_state(folder / "state", {"engine": engine.state(), "schedule": schedule.state(), "at": asdict(at)})

        run.save(at.step, write, config.keep, best)

    if latest := run.latest():
        saved.fill(objective.model, latest)
        state = read_state(latest / "state")
        engine.restore(state["engine"])
        schedule.restore(state["schedule"])
        at = Position(**state["at"])
        tracker.notice(f"Going on from step {at.step} of {run.folder}.")
    else:
        save()  # before the first step, so that a run that cannot save fails now
    run.forget_after(at.step)
    counts = {"pairs": len(objective.pairs), "held": len(objective.held), "skipped": objective.skipped}
    tracker.log({"step": at.step, **counts})
    objective.place(engine.device)
    batches = objective.batches(at.step)
    began = time.monotonic() - at.elapsed
    window = Window(at.step)

    def done() -> float:
        """Share of the training that lies behind: by steps, or by time where that runs out first."""
        return min(1.0, max(at.step / config.steps if config.steps else 1.0, at.elapsed / budget))

    def held_out() -> bool:
        """Measure the held-out loss; returns whether it is the best so far."""
        values = evaluate(objective, engine)
        tracker.log({"step": at.step, "elapsed": at.elapsed, **{f"held_{k}": v for k, v in values.items()}})
        schedule.observe(values["loss"])
        improved = values["loss"] < at.best
        at.best, at.stale = (values["loss"], 0) if improved else (at.best, at.stale + 1)
        return improved

    with interruptible() as interrupted:
        over = done() >= 1
        while not over and not interrupted() and not (config.patience and at.stale >= config.patience):
            torch.manual_seed(step_seed(config.seed, engine.rank, at.step))
            rate = schedule.rate(at.step, done())
            loss, parts = forward_backward(
                objective, engine, move(next(batches), engine.device), config.optim.accumulate, done()
            )
            norm = engine.step(config.optim.clip, rate)
            at.step += 1
            at.elapsed = time.monotonic() - began
            window.add(loss, parts, norm)
            over = done() >= 1
            if at.step % LOG_EVERY == 0 or over:
                tracker.log(window.row(at, rate, done(), config.optim.batch))
            improved = False
            if objective.held and config.valid_every and (at.step % config.valid_every == 0 or over):
                improved = held_out()
            if config.preview_every and (at.step % config.preview_every == 0 or over):
                show(preview, objective, run.samples / f"step-{at.step:06d}.png")
            at.elapsed = time.monotonic() - began
            if improved or at.step % config.save_every == 0 or over:
                save(best=improved)
    newest = run.latest()
    if newest is None or newest.name != f"step-{at.step:06d}":
        save()
    if interrupted():
        raise Interrupted(f"Interrupted at step {at.step}; everything is saved. The same command goes on from there.")
    return at


class Interrupted(TesseraError):
    """The user or a scheduler asked the run to stop; it saved first."""


def forward_backward(
    objective: Objective, engine: Engine, batch: Batch, accumulate: int, done: float
) -> tuple[Tensor, Parts]:
    """One step's gradient, in `accumulate` micro-batches; returns the mean loss and its parts."""
    losses, parts = [], []
    micros = list(zip(*(part.chunk(accumulate) if len(part) else [part] * accumulate for part in batch), strict=True))
    for i, micro in enumerate(micros):
        with engine.micro(last=i == len(micros) - 1):
            loss, part = objective.loss(engine.model, Batch(*micro), done)
        engine.backward(loss / len(micros))
        losses.append(loss.detach())
        parts.append({k: v.detach() for k, v in part.items()})
    mean = {k: engine.mean(torch.stack([p[k] for p in parts]).mean()) for k in parts[0]}
    return engine.mean(torch.stack(losses).mean()), mean


@torch.no_grad()
def evaluate(objective: Objective, engine: Engine) -> dict[str, float]:
    """Mean held-out losses over every held-out pair."""
    engine.model.eval()
    totals: dict[str, Tensor] = {}
    count = 0
    for batch in objective.held_batches():
        size = max(len(batch.pixels), len(batch.codes))
        with engine.micro(last=True):
            values = objective.held_loss(engine.model, move(batch, engine.device))
        totals = {k: totals.get(k, torch.zeros(())) + v.float().cpu() * size for k, v in values.items()}
        count += size
    engine.model.train()
    return {k: float(engine.mean(v / count)) for k, v in totals.items()}


@torch.no_grad()
def show(preview: Preview, objective: Objective, path: Path) -> None:
    objective.model.eval()
    preview(objective, path)
    objective.model.train()


class Window:
    """Numbers since the last row that was logged."""

    def __init__(self, step: int):
        self.losses: list[Tensor] = []
        self.parts: Parts = {}
        self.norm = torch.zeros(())
        self.step, self.since = step, time.monotonic()

    def add(self, loss: Tensor, parts: Parts, norm: Tensor) -> None:
        self.losses.append(loss)
        self.parts, self.norm = parts, norm

    def row(self, at: Position, rate: float, done: float, batch: int) -> dict[str, float | int]:
        loss = float(torch.stack(self.losses).mean())
        if not (math.isfinite(loss) and math.isfinite(float(self.norm))):
            raise TesseraError(
                f"The loss is {loss} and the gradient norm {float(self.norm)} at step {at.step}. The last checkpoint "
                "is good. Try a lower --optim.lr, longer --optim.warmup, or --machine.precision float32."
            )
        now = time.monotonic()
        speed = (at.step - self.step) * batch / max(now - self.since, 1e-9)
        self.losses, self.step, self.since = [], at.step, now
        numbers = {k: float(v) for k, v in self.parts.items()}
        left = at.elapsed * (1 - done) / max(done, 1e-9)
        about = {"done": done, "elapsed": at.elapsed, "left_s": left, "samples_per_s": speed}
        return {"step": at.step, "loss": loss, **numbers, "lr": rate, "norm": float(self.norm), **about}


def move(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(part.to(device, non_blocking=True) for part in batch))


def step_seed(seed: int, rank: int, step: int) -> int:
    """A different stream of noise for every (seed, rank, step)."""
    return ((seed * 1_000_003 + rank) * 1_000_003 + step) % 2**63


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM let the step end and the run save; a second Ctrl-C stops at once."""
    caught: list[int] = []

    def handle(number: int, frame: object) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = [signal.signal(s, handle) for s in signals]
    try:
        yield lambda: bool(caught)
    finally:
        for s, old in zip(signals, before, strict=True):
            signal.signal(s, old)
