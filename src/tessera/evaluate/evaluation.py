"""`evaluate`: a finished run in, evaluation.json and evaluation.html out. It knows the order of the work only.

Whatever is slow is kept in the folder under what it depends on, so that a stopped evaluation goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tessera.config import EvaluateConfig
from tessera.errors import ConfigError, DataError
from tessera.evaluate import copying, likelihood, measuring, page, texts
from tessera.evaluate import figures as results
from tessera.evaluate.drawings import Asked, asked, digest_of, draw
from tessera.evaluate.features import Features
from tessera.evaluate.features import load as load_features
from tessera.evaluate.figures import Evaluation, Figure, Word
from tessera.evaluate.ground import Ground, Progress, prepared
from tessera.evaluate.kept import Arrays, Kept, digest
from tessera.evaluate.looking import CHUNK, Look, spread
from tessera.evaluate.memorisation import Verdict
from tessera.files.claim import Lock, claim
from tessera.files.own import sweep
from tessera.generate.judge import CLIPJudge
from tessera.generate.pipeline import Pipeline
from tessera.models.saved import parameters
from tessera.models.text_to_image import TextToImage
from tessera.store.run import Run

KIND = "evaluation"
LIKELY = 512
"""Pictures of each sort whose likelihood is taken, at most."""
RANKED = 10
"""Pictures whose captions are ranked between two saves."""
ELSEWHERE = ("data", "captions", "out", "judge", "device", "batch")
"""Settings that change no figure, or that say where something is."""


@dataclass
class Findings:
    """What the steps leave."""

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    verdict: Verdict | None = None
    nats: list[float] = field(default_factory=list)
    worth: list[float] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)
    learned_nats: Tensor | None = None
    held_nats: Tensor | None = None


@dataclass(frozen=True)
class Drawn:
    """The drawings, looked at."""

    asked: Sequence[Asked]
    pixels: Tensor
    """uint8 [B, C, S, S]."""
    look: Look
    groups: Sequence[Look]


def evaluate(run: str, config: EvaluateConfig, progress: Progress, say: Callable[[str], None] = print) -> page.Shown:
    """Measure a run and write what was found; returns it with the pictures that show it.

    Raises TesseraError for everything that can be wrong, before the slow work.
    """
    config.check()
    began = time.monotonic()
    Run(run).config()
    out = Path(config.out) if config.out else Path(run) / "evaluation"
    claim(out, KIND)
    lock = Lock(out)
    lock.acquire()
    try:
        for folder in (out, out / "kept"):
            if folder.is_dir():
                sweep(folder, locked=lock.held)
        features = load_features(config.features, config.device)
        judge = _judge(run, config)
        ground = prepared(run, config, features, Kept(out / "kept"), progress)
        found, drawn = measured(run, config, ground, features, judge, progress)
        found.cost["seconds of evaluation"] = round(time.monotonic() - began, 1)
        shown = page.Shown(_evaluation(run, config, ground, found, drawn), *_sheets(ground, drawn))
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
            f"{config.judge} ranks the drawings of {run} (--best-of), so it cannot say how well they fit. Train another: "
            "tessera train clip-s-64 --seed 1 --out JUDGE, and name it with --judge."
        )
    return CLIPJudge.load(config.judge, config.device)


def measured(
    run: str, config: EvaluateConfig, ground: Ground, features: Features, judge: CLIPJudge | None, progress: Progress
) -> tuple[Findings, Drawn | None]:
    """All groups of figures, the cheap ones first."""
    found, subject, drawn = Findings(), ground.subject, None
    looks = (ground.look, ground.again_look, ground.senseless_look)
    pixels = (ground.pixels, ground.again, ground.senseless)
    if not features.name:
        found.notes.append("Nothing looks at pictures (--features none): figures that need a network are left out.")
    found.figures += measuring.tokenizer(pixels, looks, ground.vocab, features.name)
    if isinstance(subject.model, TextToImage):
        model = digest_of(ground.checkpoint)
        _likelihood(ground, model, found)
        _captions(config, ground, model, found, progress)
        if config.count:
            drawn = _draw(run, config, ground, model, found, progress)
            _drawings(config, ground, drawn, features.name, found)
            _texts(config, ground, drawn, features.name, judge, found)
            _copying(ground, drawn, features.name, found)
    else:
        kind = type(subject.model).__name__
        found.notes.append(
            f"{run} holds a {kind}, an image tokenizer, which does not draw by itself: figures of drawings, captions "
            "and copying are those of a t2i run that stands on it."
        )
    found.cost["parameters"] = parameters(subject.model)
    found.cost["seconds of training"] = round(_trained(Path(run)), 1)
    return found, drawn


def _likelihood(ground: Ground, model: str, found: Findings) -> None:
    rows = torch.tensor(spread(range(len(ground.held)), LIKELY))
    codes = ground.look.codes[rows]
    captions = [ground.held[i].captions[0] for i in rows.tolist()]
    found.held_nats = _nats(ground, model, captions, codes)
    seen = ground.look if ground.seen is None else ground.seen
    if ground.seen is not None:
        some = torch.tensor(spread(range(len(ground.learned)), LIKELY))
        texts = [ground.learned[i].captions[0] for i in some.tolist()]
        found.learned_nats = _nats(ground, model, texts, ground.seen.codes[some])
        found.figures.append(copying.membership(found.learned_nats, found.held_nats))
    floor = likelihood.unigram_nats(seen.codes, codes, ground.vocab)
    found.figures += measuring.likelihood(found.held_nats, found.learned_nats, floor)
    null, other = _nats(ground, model, None, codes), None
    if len(captions) > 1:
        other = _nats(ground, model, [captions[i] for i in likelihood.others(len(captions), 0)], codes)
    found.figures += measuring.caption_worth(found.held_nats, null, other)
    found.nats = [round(x, 5) for x in found.held_nats.mean(0).tolist()]
    found.worth = [round(x, 5) for x in (null - found.held_nats).mean(0).tolist()]


def _nats(ground: Ground, model: str, captions: Sequence[str] | None, codes: Tensor) -> Tensor:
    """Nats [B, N] of codes given captions, or given none."""
    prior, text = ground.subject.model, ground.subject.text
    assert isinstance(prior, TextToImage)
    assert text is not None

    def make() -> Arrays:
        tokens = likelihood.tokens_of(prior, text, captions or [""] * len(codes))
        return {"nats": likelihood.nats(prior, tokens if captions else prior.null_caption(tokens), codes).numpy()}

    about = [model, captions, codes.tolist()]
    return torch.from_numpy(ground.kept.get("nats", about, make)["nats"])


def _captions(config: EvaluateConfig, ground: Ground, model: str, found: Findings, progress: Progress) -> None:
    """The true caption's rank by the model's own likelihood."""
    prior, text = ground.subject.model, ground.subject.text
    assert isinstance(prior, TextToImage)
    assert text is not None
    chosen = spread(range(len(ground.held)), config.ranked) if config.ranked else []
    lists = {i: likelihood.candidates(ground.held, ground.learned, i, ground.held[i].captions[0], config.seed) for i in chosen}
    among = min(map(len, lists.values()), default=0)
    if among < 2:
        return
    parts = [chosen[i : i + RANKED] for i in range(0, len(chosen), RANKED)]
    ranks: list[float] = []
    for part in progress("Ranking captions")(parts, len(parts)):
        rows = [(ground.look.codes[i], lists[i][:among]) for i in part]

        def make(rows: Sequence[tuple[Tensor, list[str]]] = rows) -> Arrays:
            return {"ranks": np.array([likelihood.caption_rank(prior, text, codes, c) for codes, c in rows])}

        about = [model, [[codes.tolist(), c] for codes, c in rows]]
        ranks += ground.kept.get("ranks", about, make)["ranks"].tolist()
    found.figures += measuring.caption_ranks(ranks, among)


def _draw(
    run: str, config: EvaluateConfig, ground: Ground, model: str, found: Findings, progress: Progress
) -> Drawn:
    wanted = asked(ground.held, config.count, config.seed)
    load = lambda: Pipeline.load(run, config.device)
    ahead = progress("Drawing held-out captions")
    made = draw(load, model, wanted, config.sampling, config.batch, ground.kept, ahead)
    found.cost["seconds a drawing"] = round(made.seconds / len(wanted), 4)
    pixels = ground.looker.decoded(made.codes)
    parts = list(zip(pixels.split(CHUNK), made.codes.split(CHUNK), strict=True))
    ahead = progress("Looking at the drawings")
    look = Look.together([ground.looker(p, c) for p, c in ahead(parts, len(parts))])
    group = torch.arange(len(wanted)) * config.seeds // len(wanted)
    return Drawn(wanted, pixels, look, [look[group == g] for g in range(config.seeds)])


def _drawings(config: EvaluateConfig, ground: Ground, drawn: Drawn, name: str, found: Findings) -> None:
    if not name:
        return
    held = ground.look if ground.seen else None
    reference = ground.look if ground.seen is None else ground.seen
    few = min(map(len, [*drawn.groups, ground.look, reference]))
    if few < measuring.FEWEST:
        found.notes.append(
            f"Distances between sets of pictures need at least {measuring.FEWEST} in each group; there are {few}."
        )
        return
    found.figures += measuring.drawings(
        reference, drawn.groups, ground.senseless_look, ground.again_look, held, name, config.seed
    )


def _texts(
    config: EvaluateConfig, ground: Ground, drawn: Drawn, name: str, judge: CLIPJudge | None, found: Findings
) -> None:
    if judge:
        found.figures.append(
            texts.r_precision_figure(judge, drawn.asked, drawn.pixels, ground.pixels, ground.held, ground.learned, config.seed)
        )
    else:
        found.notes.append("R-precision needs a judge that had no part in this run: --judge RUN.")
    if name and ground.seen is not None:
        try:
            figure, found.words = texts.words(
                ground.learned, ground.seen, drawn.asked, drawn.look, ground.held, ground.look, ground.senseless_look, name
            )
            found.figures.append(figure)
        except DataError as error:
            found.notes.append(str(error))


def _copying(ground: Ground, drawn: Drawn, name: str, found: Findings) -> None:
    if ground.coded is None or len(ground.coded) < 2:
        found.notes.append("The pictures it learned are not there, so nothing says whether it copies them.")
        return
    more, found.verdict = copying.measured(ground.coded, ground.again_look, drawn.look, name)
    found.figures += more


def _trained(run: Path) -> float:
    """Seconds of training, an image tokenizer's in the same folder included."""
    runs = [Run(folder) for folder in (run, run / "tokenizer") if folder.is_dir()]
    return sum(max((row.get("elapsed", 0.0) for row in r.read_metrics()), default=0.0) for r in runs)


def _evaluation(run: str, config: EvaluateConfig, ground: Ground, found: Findings, drawn: Drawn | None) -> Evaluation:
    counts = {"learned": len(ground.subject.learned), "held out": len(ground.subject.held),
              "learned, looked at": len(ground.learned), "held out, looked at": len(ground.held),
              "drawn": len(drawn.asked) if drawn else 0}  # fmt: skip
    return Evaluation(
        run=Path(run).resolve().name,
        model=digest(digest_of(ground.checkpoint)),
        settings={k: v for k, v in asdict(config).items() if k not in ELSEWHERE},
        pictures=counts,
        asked=digest([[p.key, p.captions] for p in ground.held]),
        verdict=found.verdict,
        figures=tuple(sorted(found.figures, key=lambda f: results.GROUPS.index(f.group))),
        words=tuple(found.words),
        nats=tuple(found.nats),
        worth=tuple(found.worth),
        notes=tuple(found.notes),
        cost=found.cost,
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

    return [
        page.Beside(drawn.pixels[i], learned(int(near.seen[i])), learned(int(near.pixels[i])), drawn.asked[i].caption,
                    float(near.suspect[i]))
        for i in chosen
    ]  # fmt: skip
