"""What is asked for. It knows no model."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from tessera.config import SampleConfig
from tessera.config.merging import Checked, merge, nearest, short
from tessera.config.ranges import Batch, Pictures, Seed, Share
from tessera.data.pictures import read
from tessera.errors import ConfigError, DataError


@dataclass(frozen=True)
class Request(Checked):
    """What to draw: `count` pictures of a prompt, seeded seed, seed + 1, ..."""

    prompt: str
    count: Pictures = 1
    seed: Seed = 0
    sampling: SampleConfig = field(default_factory=SampleConfig)
    prime: str | Path = ""
    """A picture whose top rows the drawn ones begin with."""
    prime_rows: Share = 0.4375
    """Share of the rows taken from it."""
    batch: Batch = 8
    """Pictures drawn at a time; it changes no picture."""
    truncate: bool = False
    """Cut a prompt that is longer than the model's text, with a warning, instead of refusing it."""

    def rules(self) -> None:
        refuse_bytes(self.prompt)
        if self.seed + self.count > 2**63:
            raise ConfigError(f"seed is {self.seed}; with {self.count} pictures the last seed would be over 2^63 - 1.")


def refuse_bytes(text: str) -> None:
    """Raise ConfigError where a text holds bytes that a command line or file name had, and that are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"The prompt {short(text)} is not text in UTF-8; write it in UTF-8.") from error


def request(prompt: str, **options: Any) -> Request:
    """A Request; `options` are its fields and those of SampleConfig. Raises ConfigError that names a wrong one."""
    own = {f.name for f in fields(Request)} - {"prompt", "sampling"}
    sampling = {f.name for f in fields(SampleConfig)}
    for name in options:
        if name not in own | sampling:
            near = nearest(name, own | sampling) or "."
            raise ConfigError(f"There is no option '{name}'{near} Known: {', '.join(sorted(own | sampling))}.")
    chosen = merge(SampleConfig(), {name: value for name, value in options.items() if name in sampling})
    return merge(Request(prompt, sampling=chosen), {name: value for name, value in options.items() if name in own})


def prime_picture(path: str | Path, channels: int = 3) -> Tensor:
    """The picture that drawn ones begin with, [C, H, W]. Raises DataError that names the file."""
    try:
        return read(Path(path).expanduser(), channels)
    except DataError as error:
        raise DataError(f"{error} It was to be what the drawn ones begin with.") from error
