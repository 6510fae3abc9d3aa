"""Pictures that go out, and those that come in: sizes, formats, masks. It does not know models or HTTP."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from tessera.config import EditingConfig
from tessera.config.merging import short
from tessera.errors import ConfigError
from tessera.generate.masks import HALF, Draft, draft, opened
from tessera.generate.picture import Picture, write_png

Format = Literal["png", "webp", "jpeg"]
TYPES: dict[str, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}


def side_of(size: str | None, own: int, most: int) -> int:
    """The side of the pictures that a size asks for: the model's own, or a multiple. Raises ConfigError that names the
    sizes."""
    if size in (None, "auto"):
        return own
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    width, height = map(int, match.groups()) if match else (0, 0)
    if width != height or not width or width % own or width > max(own, most):
        sides = [f"{side}x{side}" for side in range(own, max(own, most) + 1, own)]
        more = ", ".join(sides[:4]) + (f", ... {sides[-1]}" if len(sides) > 4 else "")
        raise ConfigError(f"size is {short(size)}; this model draws {more} ('auto' is {sides[0]}).")
    return width


@dataclass(frozen=True)
class Encoding:
    """How pictures are written."""

    side: int
    format: Format = "png"
    compression: int = 100
    """Quality of webp and jpeg."""

    def __call__(self, picture: Picture) -> bytes:
        """A file. A PNG carries the words of the picture, as those that `generate` writes do."""
        image, file = picture.image, io.BytesIO()
        if image.width != self.side:
            image = image.resize((self.side, self.side), Image.Resampling.LANCZOS)
        if self.format == "png":
            write_png(image, file, picture.words)
        elif self.format == "webp":
            image.save(file, "WEBP", quality=self.compression)
        else:
            on_white(image).save(file, "JPEG", quality=max(1, self.compression))
        return file.getvalue()


def on_white(image: Image.Image) -> Image.Image:
    """Without transparency, which JPEG does not have."""
    if image.mode in ("RGB", "L"):
        return image
    whole = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")


def drafted(
    image: bytes, mask: bytes | None, config: EditingConfig, pixels: int, channels: int, grid: int, most: int
) -> Draft:
    """What an edit keeps: what the mask, or without one the picture's own transparency, leaves opaque. Raises DataError
    or ConfigError for what does not become a square, for a mask of another size, and for one that asks for nothing."""
    picture = opened(image, channels, "image", most)
    alpha = opened(image if mask is None else mask, 4, "image" if mask is None else "mask", most)[3]
    height, width = picture.shape[1:]
    left, right, top, bottom = config.sides()
    if round(width * (1 + left + right)) != round(height * (1 + top + bottom)):
        more = f" and goes on by {config.outpaint}" if config.outpaint else ""
        raise ConfigError(f"image has {width} x {height} pixels{more}; send a square picture, as this model draws.")
    if alpha.shape != (height, width):
        there = f"{alpha.shape[1]} x {alpha.shape[0]}"
        raise ConfigError(f"mask has {there} pixels and image {width} x {height}; send a mask of the same size.")
    anew = alpha < HALF
    if not (anew.any() or any(config.sides()) or config.vary):
        where = "image is opaque and there is no mask" if mask is None else "mask is opaque everywhere"
        raise ConfigError(f"{where}: there is nothing to draw. Make what is to be drawn transparent.")
    return draft(picture, anew, config.sides(), pixels, grid)
