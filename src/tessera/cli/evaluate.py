"""Commands that say how good a run is: evaluate, compare."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tessera.cli.arguments import options, run_of
from tessera.cli.screen import bar, say
from tessera.config import CompareConfig, EvaluateConfig
from tessera.generate.defaults import kept


@dataclass(frozen=True, kw_only=True)
class EvaluateRunConfig(EvaluateConfig):
    """Say how good a finished run is, and whether it copies. Stopped, the same command goes on."""

    run: str
    """The run folder."""


@dataclass(frozen=True, kw_only=True)
class CompareRunsConfig(CompareConfig):
    """Put evaluated runs side by side, and say which differences are larger than noise. Seeds of one recipe, joined by
    commas, are measured as one, with an interval that covers training again."""

    runs: tuple[str, ...]
    """Two or more run folders that were evaluated: A B, or A1,A2,A3 B1,B2,B3."""


def evaluate(args: list[str]) -> None:
    """RUN  How good a run is, and whether it copies: figures, intervals, a page. The same command goes on."""
    found = kept(run) if (run := run_of(args)) else None
    config = options(EvaluateRunConfig, args, "evaluate", True, usual=asdict(found.sampling) if found else None)
    from tessera.evaluate import card
    from tessera.evaluate.evaluation import evaluate as work
    from tessera.evaluate.telling import summary
    from tessera.store.run import Run

    shown = work(config.run, config, bar)
    for line in summary(shown.evaluation):
        say(line)
    card.write(Run(config.run))
    out = Path(config.out or Path(config.run) / "evaluation")
    say(f"\nPage: {out / 'evaluation.html'}   Figures: {out / 'evaluation.json'}")


def compare(args: list[str]) -> None:
    """RUN[,RUN ...] RUN[,RUN ...] ...  Evaluated runs side by side, and which differences are larger than noise."""
    config = options(CompareRunsConfig, args, "compare")
    from tessera.evaluate import compare as comparing
    from tessera.evaluate.recipes import load

    found = comparing.compare(load(config.runs))
    if config.format == "json":
        return say(json.dumps(comparing.to_json(found)))
    for line in [
        *comparing.table(found),
        "",
        *found.warnings,
        *comparing.sentences(found),
        "",
        *comparing.rules(found),
    ]:
        say(line)
    return None
