"""Evaluated runs, gathered by recipe: which trainings belong together, and what speaks against it. It compares no
figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

from tessera.config import PLAIN, TrainConfig
from tessera.config.merging import differences
from tessera.config.order import OrderConfig
from tessera.errors import CheckpointError, ConfigError
from tessera.evaluate.figures import Evaluation, Figure, read
from tessera.store.settings import read_settings

MEASURING = ("count", "seeds", "photographs")
"""Settings that change how drawings are measured."""
SAMPLING = ("guidance", "temperature", "top_k", "top_p", *(f.name for f in fields(OrderConfig)))
"""Settings that change the drawings themselves."""
USAGE = "tessera compare RUN RUN ... or, for seeds of one recipe, tessera compare A1,A2,A3 B1,B2,B3"
BESIDE = (
    "seed:", "out:", "tokens.image:", "track.", "machine.", "log_every:", "preview_every:", "save_every:", "keep:",
    "data.workers:",
)  # fmt: skip
"""Settings that may differ between seeds of one recipe; each may have an image tokenizer of its own."""
LONGEST = 32
"""Letters of the name of several runs."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Runs that were trained alike but for their seed; a run alone is a recipe that was trained once."""

    runs: tuple[Evaluation, ...]
    places: tuple[str, ...] = ()
    """As they were named."""
    settings: tuple[TrainConfig | None, ...] = ()
    """What each was trained with, where its folder says so."""

    @property
    def name(self) -> str:
        whole = ",".join(e.run for e in self.runs)
        more = len(self.runs) - 1
        return f"{self.runs[0].run} and {more} more" if more and len(whole) > LONGEST else whole

    @property
    def codes(self) -> dict[str, float]:
        """Each image tokenizer, and the share of the runs that have it."""
        return {codes: count / len(self.runs) for codes, count in Counter(e.codes for e in self.runs).items()}

    def figures(self, name: str) -> tuple[Figure, ...]:
        """One of each run that has it."""
        return tuple(f for e in self.runs for f in e.figures if f.name == name)


def load(words: Sequence[str]) -> list[Recipe]:
    """Recipes from the words of a command: a run, or runs joined by commas.

    Raises ConfigError where there is one run alone, one that was not evaluated, or where runs cannot be of one recipe.
    """
    named = [_places(word) for word in words]
    places = [place for group in named for place in group]
    if len(places) < 2:
        raise ConfigError(f"Name the runs to compare, the one that others are held against first: {USAGE}.")
    found = [read(place) for place in places]
    if len({e.run for e in found}) < len(found):  # folders of one name in different places
        found = [replace(e, run=place) for e, place in zip(found, places, strict=True)]
    each = iter(found)
    recipes = [
        Recipe(runs=tuple(next(each) for _ in group), places=group, settings=tuple(map(_settings, group)))
        for group in named
    ]
    for recipe in recipes:
        _check(recipe)
    return recipes


def _places(word: str) -> tuple[str, ...]:
    """A path that is there is one run, whatever commas it has."""
    parts = (word,) if Path(word).expanduser().exists() else tuple(word.split(","))
    if not all(parts):
        raise ConfigError(f"'{word}' has a comma with no run beside it: {USAGE}.")
    return parts


def _settings(place: str) -> TrainConfig | None:
    """Of the run whose folder, evaluation or evaluation.json it is."""
    path = Path(place).expanduser()
    folder = path.parent if path.is_file() else path
    for near in (folder, folder.resolve().parent):
        with suppress(CheckpointError):
            return read_settings(near / "config.json")
    return None


def _check(recipe: Recipe) -> None:
    """Raise ConfigError where runs that were joined cannot be seeds of one recipe, or were measured in two ways."""
    first, seen = recipe.runs[0], dict[str, str]()
    for e in recipe.runs:
        if e.model in seen:
            raise ConfigError(
                f"{e.run} has the weights of {seen[e.model]}: it says nothing of training again. "
                "Train the recipe again with another --seed, and name each run once."
            )
        seen[e.model] = e.run
        if e.asked != first.asked:
            raise ConfigError(
                f"{e.run} was measured on other held-out pictures than {first.run}, so they have no common mean. "
                "Evaluate both with the same --data.path, or leave out the comma."
            )
        for name in MEASURING:
            ours, theirs = said(first, name), said(e, name)
            if ours != theirs:
                raise ConfigError(
                    f"{e.run} was measured with {name} {theirs}, {first.run} with {ours}, so they have no common mean. "
                    f"Evaluate both with the same --{name}."
                )


def said(evaluation: Evaluation, name: str) -> object:
    """A setting of an evaluation; an old one does not say what it could not have asked for."""
    return evaluation.settings.get(name, getattr(PLAIN, name, None))


def notices(recipes: Sequence[Recipe]) -> list[str]:
    """What a reader should know of the recipes, as sentences."""
    found = [sentence for recipe in recipes for sentence in _within(recipe)]
    alone = [r for r in recipes if len(r.runs) == 1 and r.settings and r.settings[0]]
    while alone:
        first, *others = alone
        alike = [first, *(r for r in others if _reseeded(first.settings[0], r.settings[0]))]
        if len(alike) > 1:
            joined = ",".join(r.places[0] for r in alike)
            found.append(
                f"{', '.join(r.name for r in alike)} look like seeds of one recipe. Joined by commas they are measured "
                f"as one, training again included: {joined}"
            )
        alone = [r for r in others if r not in alike]
    return found


def _within(recipe: Recipe) -> list[str]:
    """How the runs of a recipe differ apart from their seed, and which figures are missing in some of them."""
    first, found = recipe.runs[0], []
    for e in recipe.runs[1:]:
        for name in SAMPLING:
            ours, theirs = first.settings.get(name), e.settings.get(name)
            if ours != theirs:
                found.append(
                    f"{e.run} was drawn with {name} {theirs}, {first.run} with {ours}: their spread has that too."
                )
    for e, settings in zip(recipe.runs[1:], recipe.settings[1:], strict=False):
        if changed := _unlike(recipe.settings[0], settings):
            found.append(
                f"{e.run} was trained with other settings than {first.run} ({'; '.join(changed[:4])}): their spread "
                "has that too, and is not that of one recipe."
            )
    counts = Counter(f.name for e in recipe.runs for f in e.figures)
    if some := [name for name, count in counts.items() if count < len(recipe.runs)]:
        found.append(f"Not every run of {recipe.name} has {', '.join(some)}: that is the mean of those that do.")
    return found


def _unlike(a: TrainConfig | None, b: TrainConfig | None) -> list[str]:
    """Settings that differ between two trainings, but for those that may within a recipe."""
    return [d for d in differences(a, b) if not d.startswith(BESIDE)] if a and b else []


def _reseeded(a: TrainConfig | None, b: TrainConfig | None) -> bool:
    return a is not None and b is not None and a.seed != b.seed and not _unlike(a, b)
