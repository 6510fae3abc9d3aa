"""How a run that `learn` trained draws: found by a race, and kept with the run. It knows no stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tessera.config import PLAIN, LearnConfig, SampleConfig, seconds
from tessera.errors import DataError, TesseraError, install
from tessera.evaluate.features import Features
from tessera.evaluate.features import load as load_features
from tessera.evaluate.search import Found, search
from tessera.evaluate.several import OF, Several
from tessera.evaluate.subject import Subject
from tessera.evaluate.tried import Tried
from tessera.generate import defaults
from tessera.generate.pipeline import Pipeline
from tessera.journeys.choice import SEARCH_SHARE
from tessera.store.run import Run, checkpoint_of

Progress = Callable[[str], Callable[[Iterable, int], Iterable]]


def choose(config: LearnConfig, run: Run, progress: Progress, say: Callable[[str], None]) -> None:
    """Keep with the run how it draws, unless that was measured of this checkpoint, or written by hand.

    Where nothing can be tried it is --guidance.
    """
    had, checkpoint = defaults.kept(run.folder), checkpoint_of(run.folder).name
    if had and had.checkpoint in ("", checkpoint):
        return
    found = tried(config, run, progress, say) if config.search else Found([])
    best = found.tried[0].sampling if found.tried else SampleConfig(guidance=config.guidance)
    several = [found.several.row()] if found.several else []
    defaults.keep(run.folder, best, [t.row() for t in found.tried] + several, checkpoint)
    for line in [*told(found.tried), *offered(found.several, run)]:
        say(line)


def tried(config: LearnConfig, run: Run, progress: Progress, say: Callable[[str], None]) -> Found:
    """The settings that were tried, the best first; nothing where no network looks, or time or pictures are too few."""
    if (features := looking("lite0", config.device)) is None:
        say(f"Drawing settings were not tried: that needs {install('judge')}.")
        return Found([])
    pipeline = Pipeline.load(run.folder, config.device)
    subject = Subject.load(run.folder, config.pictures, config.captions, config.device)
    budget = SEARCH_SHARE * seconds(config.budget)
    try:
        return search(pipeline, subject, features, budget, config.seed, progress)
    except DataError as error:  # a handful of pictures
        say(f"Drawing settings were not tried: {error}")
        return Found([])


def told(found: Sequence[Tried]) -> list[str]:
    """What came out, in lines."""
    if not found:
        return []
    best, plain = found[0], next(t for t in found if t.sampling == PLAIN)
    way = f"guidance {best.sampling.guidance:g}, top-p {best.sampling.top_p:g}"
    words = ""
    if best.words and plain.words:
        words = f"; words of captions seen: {best.words.value:.2f} ({plain.words.value:.2f})"
    return [
        f"Of {len(found)} ways to draw the best: {way}. Distance {best.distance.value:.1f} (plainly drawn "
        f"{plain.distance.value:.1f}){words}."
    ]


def offered(several: Several | None, run: Run) -> list[str]:
    """What drawing several pictures of a caption and keeping the best is worth, where it is worth something."""
    if not (several and several.better and several.one.words and several.best.words):
        return []
    return [
        f"The best of {OF} by the model's own judgement fits its caption better: words seen "
        f"{several.best.words.value:.2f} ({several.one.words.value:.2f}), diversity {several.diversity:.0%}. "
        f'It takes {OF} times as long: tessera generate {run.folder} "..." --count 1 --best-of {OF}'
    ]


def looking(name: str, device: str) -> Features | None:
    """The network of that name, where it can be had here."""
    try:
        return load_features(name, device)
    except TesseraError:  # its packages are not installed, or not whole
        return None
