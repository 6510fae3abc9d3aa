"""How pictures are drawn: the one list of options, for the command line, Python and HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from tessera.config.merging import Checked, short
from tessera.config.order import OrderConfig
from tessera.config.ranges import Batch, Guidance, NotNegative, Pictures, Seed, Share, ShareAboveZero
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SampleConfig(OrderConfig):
    """How codes are drawn from the model's predictions."""

    temperature: NotNegative = 1.0
    """0 always takes the most likely code; values above 1 give more varied pictures."""
    top_k: Annotated[float, Ge(0), Le(1_048_576)] = 0.0
    """Keep only the k most likely codes; a value below 1 is a share of the codebook; 0 keeps all."""
    top_p: ShareAboveZero = 1.0
    """Keep the most likely codes whose probabilities add up to this (nucleus sampling, Holtzman et al. 2020)."""
    guidance: Guidance = 1.0
    """Classifier-free guidance scale (Ho & Salimans 2022); 1 is off, 2 to 5 is usual."""
    ahead: Annotated[int, Ge(1), Le(65_536)] = 1
    """Decode this many codes in one step, all but the first guessed. The pictures stay the same; drawing them one at
    a time gets faster."""

    def rules(self) -> None:
        if 0 < self.temperature < 1e-6:
            raise ConfigError(f"temperature is {self.temperature}; give 0 for the most likely code, or at least 1e-6.")
        if self.top_k > 1 and self.top_k != int(self.top_k):
            raise ConfigError(f"top-k is {self.top_k}; give a count (50) or a share of the codebook (0.1).")


PLAIN = SampleConfig()
"""Each code as likely as the model says."""


@dataclass(frozen=True, kw_only=True)
class DrawingConfig(Checked):
    """What to draw for a prompt, and how."""

    count: Pictures = 1
    """Pictures per prompt."""
    seed: Seed = 0
    """Seed of the first picture; the next ones have seed + 1, seed + 2, ... A seed always gives the same
    picture, whatever the batch."""
    sampling: SampleConfig = field(default_factory=SampleConfig)
    prime: str | Path = ""
    """A picture whose top rows the drawn pictures begin with."""
    prime_rows: Share = 0.4375
    """Share of the rows to take from that picture."""
    batch: Batch = 8
    """Pictures to draw at a time; the pictures stay the same."""
    truncate: bool = False
    """Cut prompts that are longer than the model's text, with a warning, instead of refusing them."""


@dataclass(frozen=True)
class Request(DrawingConfig):
    """What to draw: `count` pictures of a prompt, with the seeds seed, seed + 1, ..."""

    prompt: str

    def rules(self) -> None:
        refuse_bytes(self.prompt)
        if self.seed + self.count > 2**63:
            raise ConfigError(f"seed is {self.seed}; with {self.count} pictures the last seed would be over 2^63 - 1.")


def refuse_bytes(text: str) -> None:
    """Raise ConfigError where a text came from a command line or file name whose bytes are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"The prompt {short(text)} is not text in UTF-8; write it in UTF-8.") from error
