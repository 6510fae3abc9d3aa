"""The pictures that were drawn on the page, kept on the disk: each a PNG that says its own prompt and seed. It knows no
models."""

from __future__ import annotations

import io
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from tessera.errors import DataError
from tessera.files.atomic import write_whole
from tessera.files.claim import claim
from tessera.files.regular import read_regular
from tessera.generate.picture import Picture, write_png

NAME = re.compile(r"drawn-\d{8}-\d{6}-\d{6}-[0-9a-f]{4}\.png")
LARGEST = 2**26
"""Bytes of a picture that is read."""


@dataclass(frozen=True)
class Kept:
    """A picture in the gallery, by what its PNG says."""

    name: str
    prompt: str
    seed: int
    run: str
    side: int

    @property
    def url(self) -> str:
        return f"/studio/gallery/{self.name}"


class Gallery:
    """A folder of pictures. Nothing is ever overwritten, and the order is that of their names: the time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.read: dict[str, Kept] = {}

    def keep(self, picture: Picture) -> Kept:
        """Write a picture. Raises ConfigError where the folder cannot be written."""
        claim(self.folder.parent, "studio")
        self.folder.mkdir(exist_ok=True)
        name = f"drawn-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}.png"
        file = io.BytesIO()
        write_png(picture.image, file, picture.words)
        write_whole(self.folder / name, file.getvalue())
        self.read[name] = Kept(name, picture.prompt, picture.seed, picture.run, picture.image.width)
        return self.read[name]

    def newest(self, count: int) -> list[Kept]:
        """The newest pictures first; files that cannot be read, or are not ours, are passed over."""
        if not self.folder.is_dir():
            return []
        names = sorted((p.name for p in self.folder.iterdir() if NAME.fullmatch(p.name)), reverse=True)
        found: list[Kept] = []
        for name in names:
            if len(found) == count:
                break
            if kept := self.find(name):
                found.append(self.read.setdefault(name, kept))
        return found

    def find(self, name: str) -> Kept | None:
        """What a picture says of itself; None where no picture has that name."""
        return self.read.get(name) or self._read(name)

    def content(self, name: str) -> bytes:
        """The file of a picture. Raises DataError for any other name."""
        path = self.folder / name
        if not NAME.fullmatch(name) or path.is_symlink():
            raise DataError("No picture has that name.")
        return read_regular(path, LARGEST)

    def _read(self, name: str) -> Kept | None:
        try:
            with Image.open(io.BytesIO(self.content(name))) as image:
                words = {k: str(v) for k, v in getattr(image, "text", {}).items()}
                return Kept(name, words["prompt"], int(words["seed"]), words.get("run", ""), image.width)
        except (DataError, OSError, KeyError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
