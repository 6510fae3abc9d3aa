"""What an evaluation says, as plain values and as JSON. It knows no pictures and no pages."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tessera.config.merging import read_json
from tessera.errors import ConfigError
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.memorisation import Verdict
from tessera.files.atomic import write_whole

SCHEMA, VERSION = "tessera-evaluation", 1
NAME = "evaluation.json"
GROUPS = ("drawings", "text", "caption", "likelihood", "tokenizer", "copying")
"""What figures are about, in the order in which they are shown."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line: a figure of the model, and what it would be for something worse and for something better."""

    name: str
    """What was measured, the network that looked included: figures of one name may be compared."""
    group: str
    value: Estimate
    floor: Estimate | None = None
    """Of pictures without any sense: codes drawn by how often each is used, or chance."""
    codes: Estimate | None = None
    """Of the held-out pictures after the image tokenizer: the best that drawings of these codes can be."""
    ceiling: Estimate | None = None
    """Of photographs: training pictures against held-out ones."""
    better: Literal["higher", "lower", "nearer"] = "higher"
    """Which way is better; `nearer` means nearer to the ceiling."""
    about: str = ""
    """What the figure means, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """How well a word can be seen in pictures: the area under the ROC curve of a linear probe, 0.5 is chance."""

    word: str
    photographs: float | None
    """In held-out photographs."""
    drawings: float | None
    """In drawings of captions with and without it."""
    asked: int
    """Drawings whose caption has the word."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that was measured of one run. Equal settings give equal values but for `cost`."""

    schema: Literal["tessera-evaluation"] = SCHEMA
    version: Literal[1] = VERSION
    run: str
    model: str
    """Digest of the weights of the model and its tokenizers."""
    codes: str = ""
    """Digest of the image tokenizer: what codes cost may be compared where it is equal."""
    settings: dict[str, Any]
    """What `evaluate` was told, but for where things are."""
    pictures: dict[str, int]
    """How many were learned, held out, looked at, drawn."""
    asked: str = ""
    """Digest of the held-out pairs: figures about captions may be compared where it is equal."""
    verdict: Verdict | None = None
    figures: tuple[Figure, ...] = ()
    words: tuple[Word, ...] = ()
    nats: tuple[float, ...] = ()
    """Held-out nats by place, in reading order."""
    worth: tuple[float, ...] = ()
    """Nats by place that the true caption saves against none."""
    notes: tuple[str, ...] = ()
    """What was not measured, and why."""
    cost: dict[str, float] = field(default_factory=dict)
    """Parameters, seconds of training, seconds a drawing, seconds of evaluation."""


def write(folder: Path, evaluation: Evaluation) -> Path:
    """evaluation.json."""
    path = folder / NAME
    write_whole(path, json.dumps(asdict(evaluation), indent=1, allow_nan=False))
    return path


def read(path: str | Path) -> Evaluation:
    """The evaluation of a run, in a folder or in a file. Raises ConfigError that says how to make one."""
    folder = Path(path).expanduser()
    for place in (folder, folder / NAME, folder / "evaluation" / NAME):
        if place.is_file():
            found = read_json(place)
            if isinstance(found, dict) and found.get("schema") == SCHEMA and found.get("version") != VERSION:
                raise ConfigError(f"{place} was written by another version; evaluate the run again.")
            return read_json(place, Evaluation)
    raise ConfigError(f"{path} was not evaluated yet: tessera evaluate {path}")
