"""Drawings beside their nearest training pictures, as an evaluation's page holds them. It takes pictures and words
out of the page, and none of its HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from tessera.errors import DataError
from tessera.files.regular import read_regular

PICTURE = re.compile(r"data:image/(png|webp|jpeg);base64,[A-Za-z0-9+/=\s]+")
LARGEST = 2**26


@dataclass
class Beside:
    """A drawing, what the codes of its nearest training picture keep, that picture, and the nearest one by pixels."""

    pictures: list[str] = field(default_factory=list)
    """Data URLs."""
    words: str = ""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Beside] = []
        self.near = self.speaks = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "div" and given.get("class") == "near":
            self.near = True
        elif tag == "h2":
            self.near = False
        elif self.near and tag == "figure":
            self.rows.append(Beside())
        elif self.near and tag == "img" and self.rows and PICTURE.fullmatch(given.get("src") or ""):
            self.rows[-1].pictures.append(given["src"] or "")
        self.speaks = self.near and tag == "figcaption"

    def handle_endtag(self, tag: str) -> None:
        self.speaks = self.speaks and tag != "figcaption"

    def handle_data(self, data: str) -> None:
        if self.speaks and self.rows:
            self.rows[-1].words += data


def beside(page: Path, most: int) -> Sequence[Beside]:
    """The first rows of an evaluation's page; an empty list where the page does not exist."""
    try:
        text = read_regular(page, LARGEST).decode("utf-8", "replace")
    except DataError:
        return []
    reader = _Reader()
    reader.feed(text)
    return [row for row in reader.rows if len(row.pictures) == 4][:most]
