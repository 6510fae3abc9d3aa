"""The steps of an evaluation, each for one group of figures. They know no command and no page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tessera.config import EvaluateConfig
from tessera.errors import ConfigError, DataError
from tessera.evaluate import copying, likelihood, measuring, texts
from tessera.evaluate.drawings import Asked, asked, draw
from tessera.evaluate.figures import Figure, Word
from tessera.evaluate.ground import Ground, Progress
from tessera.evaluate.kept import Arrays
from tessera.evaluate.looking import CHUNK, Look, spread
from tessera.evaluate.memorisation import Verdict
from tessera.generate.judge import CLIPJudge
from tessera.generate.likelihood import ORDERS, nats
from tessera.generate.pipeline import Pipeline
from tessera.models.any_order import AnyOrder
from tessera.models.text_to_image import TextToImage
from tessera.tokens.text import TextTokenizer

LIKELY = 512
"""Pictures of each sort whose likelihood is taken, at most."""
RANKED = 10
"""Pictures whose captions are ranked between two saves."""


@dataclass(frozen=True)
class Drawn:
    """The drawings, looked at."""

    asked: Sequence[Asked]
    pixels: Tensor
    """uint8 [B, C, S, S]."""
    look: Look
    groups: Sequence[Look]
    """The same by group, each with seeds of its own."""
    seconds: float


@dataclass
class Findings:
    """What the steps leave."""

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    verdict: Verdict | None = None
    nats: list[float] = field(default_factory=list)
    worth: list[float] = field(default_factory=list)
    drawn: Drawn | None = None


def measure(run: str, config: EvaluateConfig, ground: Ground, judge: CLIPJudge | None, progress: Progress) -> Findings:
    """All groups of figures that the run's kind of model has, the cheap ones first."""
    found, name = Findings(), ground.name
    if not name:
        found.notes.append("Nothing looked at pictures (--features none): figures that need a network are left out.")
    looks = (ground.look, ground.again_look, ground.senseless_look)
    pixels = (ground.pixels, ground.again, ground.senseless)
    found.figures += measuring.tokenizer(pixels, looks, ground.vocab, name)
    model, text = ground.subject.model, ground.subject.text
    if not isinstance(model, TextToImage) or text is None:
        found.notes.append(
            f"{run} holds a {type(model).__name__}, an image tokenizer, which does not draw by itself: figures of "
            "drawings, captions and copying are those of a t2i run that stands on it."
        )
        return found
    prior = Prior(model, text, ground)
    _likelihood(prior, config, found)
    _rank_captions(prior, config, found, progress)
    if config.count:
        found.drawn = drawn = _draw(run, config, ground, progress)
        _compare_sets(config, ground, drawn, found)
        _texts(config, ground, drawn, judge, found)
        _copying(ground, drawn, found)
    return found


class Prior:
    """A prior's likelihoods, each taken once."""

    def __init__(self, model: TextToImage, text: TextTokenizer, ground: Ground):
        self.model, self.text, self.ground = model, text, ground

    def nats(self, captions: Sequence[str], codes: Tensor) -> Tensor:
        """[B, N] of codes given captions."""
        return self._nats(captions, codes)

    def nats_alone(self, codes: Tensor) -> Tensor:
        """[B, N] of codes without a caption."""
        return self._nats(None, codes)

    def nats_in_orders(self, captions: Sequence[str], codes: Tensor) -> Tensor:
        """[B, N] of codes given captions, as means over orders of chance that each picture has of its own."""

        def make() -> Arrays:
            tokens = likelihood.tokens_of(self.model, self.text, captions)
            noise = torch.Generator().manual_seed(0)
            orders = torch.rand(ORDERS, *codes.shape, generator=noise).argsort(-1)
            return {"nats": torch.stack([nats(self.model, tokens, codes, o) for o in orders]).mean(0).numpy()}

        about = [self.ground.model, captions, codes.tolist(), ORDERS]
        return torch.from_numpy(self.ground.kept.get("nats", about, make)["nats"])

    def _nats(self, captions: Sequence[str] | None, codes: Tensor) -> Tensor:
        def make() -> Arrays:
            tokens = likelihood.tokens_of(self.model, self.text, captions or [""] * len(codes))
            tokens = tokens if captions else self.model.null_caption(tokens)
            return {"nats": nats(self.model, tokens, codes).numpy()}

        about = [self.ground.model, captions, codes.tolist()]
        return torch.from_numpy(self.ground.kept.get("nats", about, make)["nats"])

    def ranks(self, rows: Sequence[tuple[Tensor, list[str]]]) -> list[float]:
        """Of each picture's codes [N] with captions: the rank of the first one."""

        def make() -> Arrays:
            return {"ranks": np.array([likelihood.caption_rank(self.model, self.text, *row) for row in rows])}

        about = [self.ground.model, [[codes.tolist(), captions] for codes, captions in rows]]
        return self.ground.kept.get("ranks", about, make)["ranks"].tolist()


def _likelihood(prior: Prior, config: EvaluateConfig, found: Findings) -> None:
    ground = prior.ground
    rows = torch.tensor(spread(range(len(ground.held)), LIKELY))
    codes, captions = ground.look.codes[rows], [ground.held[i].captions[0] for i in rows.tolist()]
    held, learned = prior.nats(captions, codes), None
    if ground.seen is not None:
        some = torch.tensor(spread(range(len(ground.learned)), LIKELY))
        learned = prior.nats([ground.learned[i].captions[0] for i in some.tolist()], ground.seen.codes[some])
        found.figures.append(copying.membership(learned, held))
    frequencies = (ground.seen or ground.look).codes
    found.figures += measuring.likelihood(held, learned, likelihood.unigram_nats(frequencies, codes, ground.vocab))
    if isinstance(prior.model, AnyOrder):
        found.figures += measuring.in_any_order(held, prior.nats_in_orders(captions, codes))
    null = prior.nats_alone(codes)
    other = prior.nats([captions[i] for i in likelihood.others(len(captions), config.seed)], codes)
    found.figures += measuring.caption_worth(held, null, other)
    found.nats = [round(x, 5) for x in held.mean(0).tolist()]
    found.worth = [round(x, 5) for x in (null - held).mean(0).tolist()]


def _rank_captions(prior: Prior, config: EvaluateConfig, found: Findings, progress: Progress) -> None:
    """The true caption's rank by the model's own likelihood."""
    ground = prior.ground
    chosen = spread(range(len(ground.held)), config.ranked) if config.ranked else []
    among = {
        i: likelihood.candidates(ground.held, ground.learned, i, ground.held[i].captions[0], config.seed)
        for i in chosen
    }
    count = min(map(len, among.values()), default=0)
    if count < 2:
        return
    parts = [chosen[i : i + RANKED] for i in range(0, len(chosen), RANKED)]
    ranks: list[float] = []
    for part in progress("Ranking captions by likelihood")(parts, len(parts)):
        ranks += prior.ranks([(ground.look.codes[i], among[i][:count]) for i in part])
    found.figures += measuring.caption_ranks(ranks, count)


def _draw(run: str, config: EvaluateConfig, ground: Ground, progress: Progress) -> Drawn:
    wanted = asked(ground.held, config.count, config.seed)
    load = lambda: Pipeline.load(run, config.device)
    ahead = progress("Drawing held-out captions")
    made = draw(load, ground.model, wanted, config.sampling, config.batch, ground.kept, ahead)
    pixels = ground.looker.decoded(made.codes)
    parts = list(zip(pixels.split(CHUNK), made.codes.split(CHUNK), strict=True))
    ahead = progress("Looking at the drawings")
    look = Look.together([ground.looker(p, c) for p, c in ahead(parts, len(parts))])
    group = torch.arange(len(wanted)) * config.seeds // len(wanted)
    groups = [look[group == g] for g in range(config.seeds)]
    return Drawn(wanted, pixels, look, groups, made.seconds / len(wanted))


def _compare_sets(config: EvaluateConfig, ground: Ground, drawn: Drawn, found: Findings) -> None:
    if not ground.name:
        return
    held = None if ground.seen is None else ground.look
    sets = measuring.Sets(drawn.groups, ground.senseless_look, ground.again_look, held)
    reference = ground.seen or ground.look
    if (few := min(sets.size, len(reference))) < measuring.FEWEST:
        least = measuring.FEWEST
        found.notes.append(f"Distances between sets need {least} pictures in each group and more; there are {few}.")
        return
    found.figures += measuring.drawings(reference, sets, ground.name, config.seed)


def _texts(config: EvaluateConfig, ground: Ground, drawn: Drawn, judge: CLIPJudge | None, found: Findings) -> None:
    if judge:
        found.figures.append(
            texts.judged(judge, drawn.asked, drawn.pixels, ground.pixels, ground.held, ground.learned, config.seed)
        )
    else:
        found.notes.append("R-precision needs a judge that had no part in this run: --judge RUN.")
    if ground.name and ground.seen is not None:
        try:
            wanted, look, held, learned = drawn.asked, drawn.look, ground.held, ground.learned
            senseless, name = ground.senseless_look, ground.name
            figure, found.words = texts.words(learned, ground.seen, wanted, look, held, ground.look, senseless, name)
            found.figures.append(figure)
            if coded := ground.coded:
                again = ground.again_look
                through = texts.words_through_codes(learned, coded, wanted, look, held, again, senseless, name)
                found.figures.append(through)
        except (ConfigError, DataError) as error:  # scikit-learn is not here; captions without common words
            found.notes.append(str(error))


def _copying(ground: Ground, drawn: Drawn, found: Findings) -> None:
    if ground.coded is None or len(ground.coded) < 2:
        found.notes.append("The pictures that it learned are not there, so nothing says whether it copies them.")
        return
    if len(ground.learned) < len(ground.subject.learned):
        looked = f"{len(ground.learned):,} of {len(ground.subject.learned):,} learned pictures"
        found.notes.append(f"Only {looked} were looked at: a copy of another one would not be found.")
    more, found.verdict = copying.measured(ground.coded, ground.again_look, drawn.look, ground.name)
    found.figures += more
