"""What figures are taken of: a run, its learned and held-out pictures, and the floor. It takes no figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tessera.config import EvaluateConfig
from tessera.data.check import check
from tessera.data.sources import Pair
from tessera.errors import CheckpointError, ConfigError, DataError
from tessera.evaluate.drawings import digest_of
from tessera.evaluate.features import Features
from tessera.evaluate.kept import Kept
from tessera.evaluate.likelihood import unigram_codes
from tessera.evaluate.looking import Look, Looker, spread
from tessera.evaluate.subject import Subject
from tessera.machine.device import choose_device
from tessera.store.run import Run, checkpoint_of
from tessera.tokens.image import helpers

Progress = Callable[[str], Callable[[Iterable, int], Iterable]]
"""A title -> something that shows how far an iteration has come."""
HELD = 1000
"""Held-out pictures that are looked at, at most."""
FEWEST = 4
"""Held-out pictures without which nothing is measured."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A run with everything that its drawings are compared with."""

    subject: Subject
    looker: Looker
    kept: Kept
    learned: list[Pair]
    seen: Look | None
    """The learned pictures; None where there is none any more."""
    coded: Look | None
    """What the learned pictures' codes keep of them, which is as near as a drawing can come."""
    held: list[Pair]
    pixels: Tensor
    """The held-out pictures, uint8 [H, C, S, S]."""
    look: Look
    again: Tensor
    """What the held-out pictures' codes keep of them."""
    again_look: Look
    senseless: Tensor
    """Decoded from codes that were drawn by how often each is used, as many as there are held-out pictures."""
    senseless_look: Look

    model: str
    """Digest of the model and its tokenizers."""

    @property
    def name(self) -> str:
        """Of the network that looks at pictures; nothing where none does."""
        return self.looker.features.name

    @property
    def vocab(self) -> int:
        assert self.subject.image
        return self.subject.image.vocab


def opened(run: str, config: EvaluateConfig) -> Subject:
    """The run with its pairs. Raises CheckpointError where it has no pictures to measure, ConfigError or DataError
    where its pictures are not there or none was held back."""
    choose_device(config.device)
    recorded = Run(run).config()
    given, data = config.data.path, recorded.data
    hint = f"Name a folder of captioned pictures that it never saw: tessera evaluate {run} --data.path PICTURES."
    if not given and not (data.path or data.codes):
        raise ConfigError(f"{run} does not say which pictures it learned. {hint}")
    if not given and not data.holdout:
        raise ConfigError(f"{run} held no pictures back (data.holdout is 0), so nothing says what it can do. {hint}")
    unseen = given and not (data.holdout and (data.path or data.codes))
    if unseen and data.path and Path(given).resolve() == Path(data.path).resolve():
        raise ConfigError(f"{run} learned all pictures of {given}. {hint}")
    checkpoint_of(run)
    try:
        subject = Subject.load(run, given, config.captions, config.device)
    except (ConfigError, DataError) as error:
        if given:
            raise
        raise type(error)(
            f"{error} If the pictures were moved, say where they are now: --data.path PICTURES."
        ) from error
    if subject.image is None:
        raise CheckpointError(
            f"{run} holds a {type(subject.model).__name__}, which makes no pictures; name a t2i, dvae or pyramid run."
        )
    if (features := config.features.partition(":")[0]) in helpers(subject.image):
        raise ConfigError(
            f"{features} helped to train the image tokenizer of {run} (model.perceptual), so it is blind to what it "
            "was used to hide. Let another network judge: --features lite2."
        )
    return _all_held(subject, run, config) if unseen else subject


def _all_held(subject: Subject, run: str, config: EvaluateConfig) -> Subject:
    """A run that held nothing back: what was given it never saw; what it learned is looked for where it was."""
    given, learned = [*subject.learned, *subject.held], []
    data = Run(run).config().data
    if data.path:
        with suppress(ConfigError, DataError):  # on another machine it is not there
            learned = check(data.path, data.captions).pairs
    return dataclasses.replace(subject, held=given, learned=learned)


def prepared(
    run: str, config: EvaluateConfig, subject: Subject, features: Features, kept: Kept, progress: Progress
) -> Ground:
    """Look at all photographs, at their reconstructions and at the floor.

    Raises DataError where too few held-out pictures can be read.
    """
    looker = Looker(subject, features, kept)
    held, pixels = subject.readable(spread(subject.held, min(HELD, config.photographs or HELD)))
    if len(held) < FEWEST:
        raise DataError(
            f"{run} has {len(held)} held-out pictures that can be read; at least {FEWEST} are needed, and some dozens "
            f"for intervals that say something. Name more: tessera evaluate {run} --data.path PICTURES."
        )
    wanted = spread(subject.learned, config.photographs)
    learned, seen, coded = looker.photographs(wanted, progress("Looking at the learned pictures"))
    look = looker(pixels)
    again = looker.decoded(look.codes)
    codes = unigram_codes((seen or look).codes, len(held), subject.image.vocab, config.seed)  # type: ignore[union-attr]
    senseless = looker.decoded(codes)
    return Ground(
        subject=subject, looker=looker, kept=kept, learned=learned, seen=seen,
        coded=coded, held=held, pixels=pixels, look=look, again=again, again_look=looker(again, look.codes),
        senseless=senseless, senseless_look=looker(senseless, codes),
        model=digest_of(checkpoint_of(run)),
    )  # fmt: skip
