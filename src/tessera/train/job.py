"""One training run, from its settings to its last checkpoint. It knows no kind of model and no engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tessera.config import TrainConfig, kind_of
from tessera.data.check import Health, check
from tessera.data.codes import Codes
from tessera.data.sources import Pair
from tessera.data.split import Data, split
from tessera.errors import CheckpointError, ConfigError, DataError
from tessera.hub.pull import located
from tessera.machine import paths
from tessera.machine.memory import free_memory
from tessera.models import saved
from tessera.store.checkpoint import verify
from tessera.store.run import Run, checkpoint_of
from tessera.tokens import image as image_tokens
from tessera.tokens import text as text_tokens
from tessera.tokens.image import ImageTokenizer
from tessera.tokens.text import TextTokenizer
from tessera.train import loop, plan, track, trackers
from tessera.train.engines import table as engines
from tessera.train.engines.protocol import Engine
from tessera.train.look import Preview
from tessera.train.objectives.protocol import Objective
from tessera.train.objectives.table import OBJECTIVES
from tessera.train.replicas import together
from tessera.train.track import Tracker

Progress = Callable[[Iterable, int], Iterable]
"""Something that shows how far an iteration has come, given its length."""
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Ways:
    """What a run is shown with. Every field has a silent default."""

    preview: Preview = lambda objective, path: ""
    """Draws what the model can do by now."""
    say: Callable[[str], None] = lambda line: None
    """Takes the lines that are worth reading before the first step; called by the first rank alone."""
    progress: Progress = lambda items, total: items
    """Around the check of the pictures."""
    trackers: Mapping[str, Tracker] = field(default_factory=dict)
    """Who else is told of numbers and pictures, by name; where one fails, training goes on without it."""
    around: Callable[[Callable[[], object]], object] = lambda steps: steps()
    """Around all steps: a profiler, for one."""
    begin: Callable[[Objective, Run], object] = lambda objective, run: None
    """Called by the first rank when everything is read, and nothing is learned yet."""
    finish: Callable[[Objective, Run], object] = lambda objective, run: None
    """Called by the first rank after the last step, while the folder is still ours; the model is whole then."""


def train(
    config: TrainConfig, ways: Ways = Ways(), title: str = "", run: Run | None = None, health: Health | None = None
) -> Objective:
    """Train one model to the end of its steps or its budget, or go on where it stopped; returns it with its data.

    `health` says what `check` found already. Raises TesseraError for everything that can be wrong, before the first
    step; Interrupted where a signal asked to stop and everything is saved.
    """
    engine, run = engines.choose(config), run or Run(config.out)
    ways = ways if engine.rank == 0 else Ways()
    with ExitStack() as stack:  # the folder is ours alone from before the data is read to after the report
        together(engine, lambda: None if engine.rank else stack.enter_context(run.held()))
        if engine.world == 1:
            plan.refuse_too_large(config.model, free_memory(engine.device))
        objective, notices = _first_reads(config, run, engine, health, ways)
        ways.say(
            f"{len(objective.pairs)} pairs to learn, {len(objective.held)} held out; "
            f"{saved.parameters(objective.model):,} parameters; {engine.world} x {engine.name}."
        )
        free = engine.least(free_memory(engine.device))
        objective.config, expected = plan.settle(objective.config, engine.device, free, engine.world, objective.encoder)
        ways.say(f"Memory expected: {expected}; {plan.size(free)} are free. {paths.summary()}")
        tracker = (
            trackers.choose(objective.config, run, title, ways.trackers) if engine.rank == 0 else track.Several([])
        )
        for notice in notices:
            tracker.notice(notice)
        try:
            ways.around(lambda: loop.train(objective.config, objective, engine, run, tracker, ways.preview))
            engine.close()
        finally:
            tracker.close()
        if engine.rank == 0:
            if not engine.replicated or objective.config.optim.ema:
                objective.model = saved.read(run.best()).to(engine.device)
            ways.finish(objective, run)
    return objective


def _first_reads(
    config: TrainConfig, run: Run, engine: Engine, health: Health | None, ways: Ways
) -> tuple[Objective, list[str]]:
    """The first rank reads the data first, and leaves what it found for the others; where one fails all of them end."""

    def prepare() -> tuple[Objective, list[str]]:
        objective = build(config, health, ways.progress)
        notices = run.open(objective.config) if engine.rank == 0 else []
        ways.begin(objective, run)
        return objective, notices

    first = together(engine, lambda: None if engine.rank else prepare())
    return together(engine, lambda: first or prepare())


def build(config: TrainConfig, health: Health | None = None, progress: Progress | None = None) -> Objective:
    """The objective with its data, its tokenizers and its fresh model.

    Everything that can be wrong with them raises here, before the first step.
    """
    run = Run(config.out)
    run.make()
    data = read(config, run, health, progress)
    return OBJECTIVES[kind_of(config.model)].prepare(config, data, RunTokenizers(config, run))


def read(config: TrainConfig, run: Run, health: Health | None = None, progress: Progress | None = None) -> Data:
    """The pairs, checked and split. Raises DataError where none is left to learn from."""
    codes = Codes(Path(config.data.codes)) if config.data.codes else None
    if not (codes or health):
        health = check(config.data.path, config.data.captions, run.folder / "data.json", progress)
    pairs = codes.pairs if codes else health.pairs if health else []
    learned, held = split(pairs, config.data.holdout)
    if not learned:
        share = config.data.holdout
        raise DataError(f"All {len(pairs)} pairs fell to the held-out share; lower data.holdout ({share}).")
    return Data(learned, held, len(health.skipped) if health else 0, codes)


class RunTokenizers:
    """Those that the run's checkpoints hold; before there is one, those that the settings name."""

    def __init__(self, config: TrainConfig, run: Run):
        self.config, self.run = config.tokens, run

    def text(self, pairs: list[Pair]) -> TextTokenizer:
        if self.run.checkpoints():
            return self._kept("text_tokenizer", text_tokens.load)
        return text_tokens.choose(self.config.text, [c for p in pairs for c in p.captions], self.config.vocab)

    def image(self) -> ImageTokenizer:
        if self.run.checkpoints():
            return self._kept("image_tokenizer", image_tokens.load)
        name = self.config.image
        folder = located(name)
        if not name or not folder.is_dir():
            raise ConfigError(
                f"tokens.image {name!r} is not a folder: name a run with a trained image tokenizer, or user/name on "
                "the hub."
            )
        return image_tokens.load(checkpoint_of(folder))

    def _kept(self, name: str, load: Callable[[Path], Kept]) -> Kept:
        """From the newest checkpoint in which it is whole: it is the same in all of them."""
        wrong = ""
        for checkpoint in reversed(self.run.checkpoints()):
            try:
                verify(checkpoint, lambda file: file.startswith(f"{name}/"))
                return load(checkpoint / name)
            except CheckpointError as error:
                wrong = wrong or str(error).rstrip(".")
        raise CheckpointError(
            f"No checkpoint of {self.run.folder} is whole: {wrong}. Restore one, or give a new --out."
        )
