"""Commands that say how good a run is: evaluate, compare."""

from __future__ import annotations

import json
from pathlib import Path

from tessera.cli.arguments import options, positionals
from tessera.cli.screen import bar, say
from tessera.config import CompareConfig, EvaluateConfig


def evaluate(args: list[str]) -> None:
    """RUN  How good a run is, and whether it copies: figures, intervals, a page. The same command goes on."""
    (run,), args = positionals(args, "evaluate RUN")
    config = options(EvaluateConfig(), args, "evaluate RUN")
    from tessera.evaluate.evaluation import evaluate as work
    from tessera.evaluate.telling import summary

    shown = work(run, config, bar)
    for line in summary(shown.evaluation):
        say(line)
    out = Path(config.out or Path(run) / "evaluation")
    say(f"\nPage: {out / 'evaluation.html'}   Figures: {out / 'evaluation.json'}")


def compare(args: list[str]) -> None:
    """RUN RUN ...  Evaluated runs side by side, and which differences are larger than noise."""
    runs, args = positionals(args, "compare RUN RUN ...", count=2, many=True)
    config = options(CompareConfig(), args, "compare RUN RUN ...")
    from tessera.evaluate import compare as comparing

    found = comparing.compare(comparing.load(runs))
    if config.format == "json":
        return say(json.dumps(comparing.to_json(found)))
    for line in [*comparing.table(found), "", *found.warnings, *comparing.sentences(found), "", comparing.RULE]:
        say(line)
    return None
