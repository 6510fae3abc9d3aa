"""A drawn picture, and the picture that others begin with. It does not know the model."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from PIL import Image, PngImagePlugin
from torch import Tensor

from tessera.config import Request
from tessera.data.pictures import middle_square, read, resized
from tessera.errors import DataError
from tessera.files.atomic import whole
from tessera.generate.given import Given
from tessera.tokens.image import ImageTokenizer


@dataclass(frozen=True)
class Picture:
    """A drawn picture, which a notebook shows."""

    image: Image.Image
    prompt: str
    seed: int
    run: str = ""
    codes: tuple[int, ...] = field(default=(), repr=False)
    score: float | None = None
    """How well it fits the prompt, as a judge finds: higher is better."""

    @property
    def words(self) -> dict[str, str]:
        """What its PNG says of it."""
        words = {"prompt": self.prompt, "seed": str(self.seed), "run": self.run}
        return words if self.score is None else {**words, "score": f"{self.score:.4f}"}

    def save(self, path: str | Path) -> None:
        """A PNG that carries its prompt, seed and run."""
        save_png(self.image, Path(path), self.words)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return buffer.getvalue()


def write_png(image: Image.Image, file: str | Path | IO[bytes], words: dict[str, str]) -> None:
    """A PNG with `words` and the mark of this program."""
    about = PngImagePlugin.PngInfo()
    for key, value in {**words, "software": "Tessera"}.items():
        about.add_itxt(key, value)
    image.save(file, "PNG", pnginfo=about)


def save_png(image: Image.Image, path: Path, words: dict[str, str]) -> None:
    """The same, whole or not at all."""
    with whole(path) as fresh:
        write_png(image, fresh, words)


def prime_picture(path: str | Path, channels: int = 3) -> Tensor:
    """The picture that others begin with, [C, H, W]. Raises DataError that names the file."""
    try:
        return read(Path(path).expanduser(), channels)
    except DataError as error:
        raise DataError(f"{error} The drawn pictures were to begin with it.") from error


def begun(request: Request, image: ImageTokenizer) -> Given:
    """What a request says that its pictures begin with: a share of the rows of another picture, or nothing."""
    total = image.grid**2
    if not request.prime:
        return Given.nothing(total)
    picture = prime_picture(request.prime, image.channels)
    small = resized(picture, middle_square(*picture.shape[1:]), image.pixels)
    codes = image.encode(small[None].float() / 255)
    return Given.first(codes[:, : round(request.prime_rows * image.grid) * image.grid], total)
