"""A drawn picture, and the picture that others begin with. It does not know the model."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Int
from PIL import Image, PngImagePlugin
from torch import Tensor

from tessera.data.pictures import middle_square, read, resized
from tessera.errors import DataError
from tessera.files.atomic import whole
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

    def save(self, path: str | Path) -> None:
        """A PNG that carries its prompt, seed and run."""
        words = {"prompt": self.prompt, "seed": str(self.seed), "run": self.run}
        if self.score is not None:
            words["score"] = f"{self.score:.4f}"
        save_png(self.image, Path(path), words)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return buffer.getvalue()


def save_png(image: Image.Image, path: Path, words: dict[str, str]) -> None:
    """Write a PNG with `words` and the mark of this program, whole or not at all."""
    about = PngImagePlugin.PngInfo()
    for key, value in {**words, "software": "Tessera"}.items():
        about.add_itxt(key, value)
    with whole(path) as fresh:
        image.save(fresh, "PNG", pnginfo=about)


def prime_picture(path: str | Path, channels: int = 3) -> Tensor:
    """The picture that others begin with, [C, H, W]. Raises DataError that names the file."""
    try:
        return read(Path(path).expanduser(), channels)
    except DataError as error:
        raise DataError(f"{error} The drawn pictures were to begin with it.") from error


def prime_codes(path: str | Path, share: float, image: ImageTokenizer) -> Int[Tensor, "1 n"]:
    """The codes of a share of the rows of the picture that others begin with."""
    picture = prime_picture(path, image.channels)
    small = resized(picture, middle_square(*picture.shape[1:]), image.pixels)
    return image.encode(small[None].float() / 255)[:, : round(share * image.grid) * image.grid]
