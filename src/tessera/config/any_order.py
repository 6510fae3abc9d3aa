"""The settings of the prior that predicts codes in any order. They know no training."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tessera.config.drawing import SampleConfig
from tessera.config.network import MODELS
from tessera.config.order import OrderConfig
from tessera.config.ranges import Depth, Share
from tessera.config.text_to_image import TextToImageConfig
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AnyOrderConfig(TextToImageConfig):
    """The prior of any order: codes are read in any order, and any place may be asked for (after ARPG, Li et al.
    2025)."""

    query_depth: Depth = 1
    """How many of the transformer's layers answer queries; the others read text and codes."""
    raster_share: Share = 0.0
    """Share of the pictures that are read in reading order in training; the others in an order of chance."""

    def rules(self) -> None:
        super().rules()
        t = self.transformer
        if self.query_depth >= t.depth:
            raise ConfigError(
                f"query-depth is {self.query_depth} of the {t.depth} layers that transformer.depth gives, and at least "
                "one must read what the queries ask of; lower query-depth."
            )
        if set(t.patterns) != {"full"}:
            raise ConfigError(
                f"patterns has {', '.join(p for p in t.patterns if p != 'full')}, which stands on reading order; a "
                "prior of any order takes 'full' alone. For other patterns train a t2i preset."
            )
        if t.shift:
            raise ConfigError(
                "shift is on, which reads the codes above and to the left; in any order these may not be known yet. "
                "Leave it off, or train a t2i preset."
            )
        if t.positions == "none":
            raise ConfigError(
                "positions is none, and in any order the places of codes cannot be told from their sequence; take "
                "rotary or axial."
            )


MODELS["any_order"] = AnyOrderConfig
PRIORS = ("t2i", "any_order")
"""Kinds of models that draw."""


def refuse_order(sampling: SampleConfig, model: TextToImageConfig) -> None:
    """Raise ConfigError where a model is asked for an order or for steps that it does not know."""
    asked = [f.name for f in fields(OrderConfig) if getattr(sampling, f.name) != f.default]
    if asked and not isinstance(model, AnyOrderConfig):
        raise ConfigError(
            f"{asked[0].replace('_', '-')} is {getattr(sampling, asked[0])}, but this model draws in reading order, "
            "code by code. Leave it out, or train a prior of any order: tessera train any-xs-64."
        )
    if sampling.ahead > 1 and not by_code(sampling):
        raise ConfigError(
            f"ahead is {sampling.ahead}, which guesses the codes that follow in reading order; leave out steps, order "
            "and guidance-schedule, or leave out ahead."
        )


def by_code(sampling: SampleConfig) -> bool:
    """Whether codes are drawn in reading order, one after the other, each guided alike."""
    alike = sampling.guidance_schedule == "constant"
    return not sampling.steps and sampling.order in ("auto", "raster") and alike
