"""What is measured and drawn on the way: the held-out loss and sample pictures. It moves no weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import torch

from tessera.config import TrainConfig
from tessera.data.batches import Batch
from tessera.store.position import Position
from tessera.store.run import Run
from tessera.train.engines.protocol import Engine
from tessera.train.objectives.protocol import Models, Objective
from tessera.train.optim import Schedule
from tessera.train.track import Tracker

Preview = Callable[[Objective, Path], str]
"""Given the objective in eval mode and a PNG's path, show what the model can do by now; returns the captions in it."""


COLLAPSED = 2.0
"""Fewer codes than so many in effect (perplexity of held-out pictures) tell nothing apart."""
SETTLED = 100
"""Steps before which a tokenizer may still find its codes."""


def within(contexts: Iterable[AbstractContextManager]) -> ExitStack:
    """Several contexts as one."""
    stack = ExitStack()
    for context in contexts:
        stack.enter_context(context)
    return stack


@torch.no_grad()
def evaluate(objective: Objective, engine: Engine) -> dict[str, float]:
    """Mean held-out losses over every held-out pair; ranks share the batches."""
    totals: dict[str, float] = {}
    count, found = 0, models(engine)
    for model in found.values():
        model.eval()
    with within(trainee.averaged() for trainee in engine.trainees.values()):
        for batch, share in objective.held_batches(engine.rank, engine.world):
            size = max(len(batch.pixels), len(batch.codes)) * share
            with engine.autocast():
                values = objective.held_losses(found, move(batch, engine.device))
            totals = {k: totals.get(k, 0.0) + float(v) * size for k, v in values.items()}
            count += size
    for model in found.values():
        model.train()
    *sums, number = engine.all_reduce_mean(torch.tensor([*totals.values(), count], dtype=torch.float64)).tolist()
    return {k: s / number for k, s in zip(totals, sums, strict=True)}


def held_out(
    config: TrainConfig,
    objective: Objective,
    engine: Engine,
    at: Position,
    schedules: Mapping[str, Schedule],
    tracker: Tracker,
) -> tuple[bool, bool]:
    """Measure the held-out loss and tell the schedules; returns whether it is the best so far, and whether the
    training should stop because an image tokenizer's codes have collapsed."""
    values = evaluate(objective, engine)
    tracker.log({"step": at.step, "elapsed": at.elapsed, **{f"held_{k}": v for k, v in values.items()}})
    if collapsed := at.step >= SETTLED and values.get("perplexity", COLLAPSED) < COLLAPSED:
        tracker.notice(
            f"Step {at.step}: the codes have collapsed. Held-out pictures are told apart by {values['perplexity']:.1f} "
            "codes in effect. Train again with half of optim.lr, or take a pyramid-* preset, whose norm prevents it."
        )
    for schedule in schedules.values():
        schedule.observe(values["loss"])
    improved = (values["loss"] < at.best or objective.polishing) and not at.spoiled
    at.best, at.stale = (values["loss"], 0) if improved else (at.best, at.stale + 1)
    return improved, collapsed and config.stop_collapsed


@torch.no_grad()
def show(preview: Preview, objective: Objective, engine: Engine, run: Run, step: int, tracker: Tracker) -> None:
    """The first rank draws, with a model that it can call alone."""
    own, trainee = objective.model, next(iter(engine.trainees.values()))
    with trainee.averaged():
        reader = trainee.reader()
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


def models(engine: Engine) -> Models:
    """What losses are computed with, by network."""
    return {name: trainee.model for name, trainee in engine.trainees.items()}


def move(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(part.to(device, non_blocking=True) for part in batch))
