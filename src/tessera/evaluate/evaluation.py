"""`evaluate`: a finished run in, evaluation.json and evaluation.html out. It knows the order of the work only.

Whatever is slow is kept in the folder under what it depends on, so that a stopped evaluation goes on.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from tessera.config import EvaluateConfig
from tessera.errors import ConfigError
from tessera.evaluate import copying, page, steps
from tessera.evaluate import figures as results
from tessera.evaluate.features import load as load_features
from tessera.evaluate.figures import Evaluation
from tessera.evaluate.ground import Ground, Progress, opened, prepared
from tessera.evaluate.kept import Kept, digest, writing
from tessera.evaluate.looking import spread
from tessera.evaluate.steps import Drawn, Findings
from tessera.files.claim import Lock, claim
from tessera.files.own import sweep
from tessera.generate.judge import CLIPJudge
from tessera.models.saved import parameters
from tessera.store.run import Run

KIND, KEPT = "evaluation", "kept"
ELSEWHERE = ("run", "data", "captions", "out", "judge", "device", "batch", "ahead")
"""Settings that change no figure, or that say where something is."""


def evaluate(run: str, config: EvaluateConfig, progress: Progress) -> page.Shown:
    """Measure a run and write what was found; returns it with the pictures that show it.

    Raises TesseraError for everything that can be wrong, before the slow work.
    """
    config.check()
    began = time.monotonic()
    features, judge = load_features(config.features, config.device), _judge(run, config)
    subject = opened(run, config)
    out = Path(config.out) if config.out else Path(run) / "evaluation"
    claim(out, KIND)
    lock = Lock(out)
    lock.acquire()
    try:
        for folder in (out, out / KEPT):
            if folder.is_dir():
                sweep(folder, locked=lock.held)
        ground = prepared(run, config, subject, features, Kept(out / KEPT), progress)
        found = steps.measure(run, config, ground, judge, progress)
        cost = _cost(Path(run), ground, found)
        cost["seconds of evaluation"] = round(time.monotonic() - began, 1)
        shown = page.Shown(_evaluation(run, config, ground, found, cost), *_sheets(ground, found.drawn))
        with writing(out):
            results.write(out, shown.evaluation)
            page.write(out, shown)
    finally:
        lock.release()
    return shown


def _judge(run: str, config: EvaluateConfig) -> CLIPJudge | None:
    """The judge that was named. Raises ConfigError where it is the one that ranks this run's drawings."""
    if not config.judge:
        return None
    if Path(config.judge).resolve() == (Path(run) / "judge").resolve():
        raise ConfigError(
            f"{config.judge} ranks the drawings of {run} (--best-of), so it cannot say how well they fit. Train "
            "another: tessera train clip-s-64 --seed 1 --out JUDGE, and name it with --judge."
        )
    return CLIPJudge.load(config.judge, config.device)


def _cost(run: Path, ground: Ground, found: Findings) -> dict[str, float]:
    """Training is that of an image tokenizer in the same folder too."""
    runs = [Run(folder) for folder in (run, run / "tokenizer") if folder.is_dir()]
    trained = sum(max((row.get("elapsed", 0.0) for row in r.read_metrics()), default=0.0) for r in runs)
    drawing = {"seconds a drawing": round(found.drawn.seconds, 4)} if found.drawn else {}
    return {"parameters": parameters(ground.subject.model), "seconds of training": round(trained, 1), **drawing}


def _evaluation(
    run: str, config: EvaluateConfig, ground: Ground, found: Findings, cost: dict[str, float]
) -> Evaluation:
    counts = {"learned": len(ground.subject.learned), "held out": len(ground.subject.held),
              "learned, looked at": len(ground.learned), "held out, looked at": len(ground.held),
              "drawn": len(found.drawn.asked) if found.drawn else 0}  # fmt: skip
    return Evaluation(
        run=Path(run).resolve().name,
        model=ground.model,
        codes=ground.looker.tokenizer,
        settings={k: v for k, v in asdict(config).items() if k not in ELSEWHERE},
        pictures=counts,
        asked=digest([[p.key, p.captions] for p in ground.held]),
        verdict=found.verdict,
        figures=tuple(sorted(found.figures, key=lambda f: results.GROUPS.index(f.group))),
        words=tuple(found.words),
        nats=tuple(found.nats),
        worth=tuple(found.worth),
        notes=tuple(found.notes),
        cost=cost,
    )


def _sheets(ground: Ground, drawn: Drawn | None) -> tuple[list, list, Tensor, Tensor]:
    """The pictures that the page shows, as `page.Shown` takes them."""
    columns = min(page.CODED, len(ground.held))
    coded = torch.cat((ground.pixels[:columns], ground.again[:columns]))
    if drawn is None:
        return [], [], coded, ground.senseless[:columns]
    first = [(drawn.pixels[i], drawn.asked[i].caption) for i in range(min(page.DRAWN, len(drawn.asked)))]
    return first, _beside(ground, drawn), coded, ground.senseless[:columns]


def _beside(ground: Ground, drawn: Drawn) -> list[page.Beside]:
    """The likeliest copies first, then others, evenly spread."""
    if ground.coded is None or len(ground.coded) < 2:
        return []
    near = copying.nearest(ground.coded, drawn.look)
    ordered = copying.order(near.suspect)
    chosen = ordered[: page.SUSPECTS] + spread(ordered[page.SUSPECTS :], page.OTHERS)

    def learned(i: int) -> Tensor:
        return ground.subject.readable([ground.learned[i]])[1][0]

    def beside(i: int) -> page.Beside:
        seen, pixels = int(near.seen[i]), int(near.pixels[i])
        kept = ground.looker.decoded(ground.coded.codes[seen : seen + 1])[0]  # type: ignore[union-attr]
        suspect = float(near.suspect[i])
        return page.Beside(drawn.pixels[i], kept, learned(seen), learned(pixels), drawn.asked[i].caption, suspect)

    return [beside(i) for i in chosen]
