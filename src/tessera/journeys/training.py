"""`train`: one model trained, with previews along the way and a report at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from tessera.config import PRIORS, TrainConfig, kind_of
from tessera.evaluate import card, report
from tessera.evaluate.subject import Subject
from tessera.files.atomic import write_whole
from tessera.journeys.declared import declare
from tessera.journeys.live import Curves
from tessera.journeys.preview import preview
from tessera.machine.notebook import Wish, shows
from tessera.store.run import Run
from tessera.train import job
from tessera.train.objectives.protocol import Objective

Progress = Callable[[str], Callable[[Iterable, int], Iterable]]
"""A title -> something that shows how far an iteration has come."""


def train(
    config: TrainConfig,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda title: lambda items, total: items,
    title: str = "",
    profiler: Callable[[Callable[[], object]], object] | None = None,
    plot: Wish = "auto",
) -> Run:
    """Train a model to its end, or go on where it stopped; writes report.html, manifest.json and README.md. Returns its
    run.

    `say` takes lines for a reader, `profiler` runs all steps in its own way, `plot` shows the loss curves in a cell of
    a notebook while they grow: on, off, or auto, where there is one. Raises TesseraError for everything that can be
    wrong, before the first step.
    """
    config.check()
    trackers = {"the live plot": Curves(Run(config.out))} if shows(plot, "plot") else {}

    def finish(objective: Objective, run: Run) -> None:
        if profiler:
            return
        for name, value in report.write(run, judged(objective, run), [], (), codes_of(objective)).items():
            say(f"  {name:<50} {value}")
        put_sheet(run)
        card.write(run)
        say(f"Done: {run.best()}   Report: {run.folder / 'report.html'}")

    checking = progress("Checking the pictures")
    around = profiler or (lambda steps: steps())
    job.train(config, job.Ways(preview, say, checking, trackers, around, declare, finish), title)
    return Run(config.out)


def put_sheet(run: Run) -> None:
    """Put the newest preview of a prior, which shows drawings alone, where the card shows it."""
    previews = sorted(run.samples.glob("step-*.png")) if kind_of(run.config().model) in PRIORS else []
    if previews:
        with run.written():
            write_whole(run.folder / "contact-sheet.png", previews[-1].read_bytes())


def judged(objective: Objective, run: Run) -> Subject:
    """What was just trained, as evaluation sees it."""
    return Subject(
        model=objective.model,
        image=objective.image,
        text=objective.text,
        learned=objective.pairs,
        held=objective.held,
        skipped=objective.skipped,
        curves=run.read_metrics(),
    )


def codes_of(objective: Objective) -> Tensor | None:
    """The codes of the held-out pictures, [B, N], as training sees them."""
    objective.model.eval()
    with torch.no_grad():
        found = objective.held_codes()
    return torch.cat(found).cpu() if found else None
