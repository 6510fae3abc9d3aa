"""A folder of pictures as the doctor sees it, and what `learn` would make of it. The commands do the work, in processes
of their own; it knows no pages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tessera.config import seconds
from tessera.data.find import find
from tessera.data.pictures import decode_bytes
from tessera.errors import ConfigError, TesseraError
from tessera.evaluate.report import data_url
from tessera.files.regular import read_regular
from tessera.studio.places import Places
from tessera.studio.processes import asked

SECONDS = 1800.0
"""In which a folder must have been looked at."""
LARGEST, PIXELS, THUMB = 2**26, 2**26, 112
"""Bytes and pixels of a picture that is shown, and the side at which it is."""


@dataclass(frozen=True)
class Report:
    """What was found."""

    layout: str
    pairs: Sequence[dict]
    skipped: Sequence[dict]
    duplicates: Sequence[Sequence[str]]
    settings: dict

    @property
    def sides(self) -> list[int]:
        return sorted(min(pair["width"], pair["height"]) for pair in self.pairs)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why pictures were left out, the most frequent reason first."""
        return Counter(skip["reason"] for skip in self.skipped).most_common()


@dataclass(frozen=True)
class Sample:
    """A picture with its captions; `source` is a small JPEG as a data URL."""

    source: str
    captions: Sequence[str]


async def look(folder: Path) -> Report:
    """Open every picture once. Raises ConfigError with the doctor's sentence where none can be used."""
    return Report(**json.loads(await asked("data", ["check", str(folder), "--json"], SECONDS)))


async def plan(folder: Path, budget: str) -> list[tuple[str, str, str]]:
    """What learn would choose: name, value, reason."""
    return json.loads(await asked("show", ["learn", str(folder), "--budget", budget, "--json"], SECONDS))


def samples(places: Places, folder: Path, count: int) -> list[Sample]:
    """Some pictures with their captions, evenly spread. Those that cannot be read or lie elsewhere are left out."""
    pairs = find(str(places.pictures(folder))).pairs
    found = []
    for pair in pairs[:: max(1, len(pairs) // count)][:count]:
        try:
            if isinstance(pair.image, Path) and places.readable(pair.image):
                found.append(Sample(thumbnail(read_regular(pair.image, LARGEST)), pair.captions))
        except TesseraError:
            continue
    return found


def thumbnail(content: bytes) -> str:
    """A small JPEG of a picture, as a data URL. Raises DataError for what is not a picture."""
    image = Image.fromarray(decode_bytes(content, 3, PIXELS).permute(1, 2, 0).numpy())
    image.thumbnail((2 * THUMB, 2 * THUMB), Image.Resampling.LANCZOS)
    return data_url(image, "JPEG", quality=85)


def budget_of(text: str) -> str:
    """A time such as 30m, checked. Raises ConfigError for anything else."""
    text = text.strip().replace(" ", "")
    if not 5 <= seconds(text) <= 30 * 86_400:
        raise ConfigError(f"The time is {text}; give something between 5s and 720h, for example 30m.")
    return text
