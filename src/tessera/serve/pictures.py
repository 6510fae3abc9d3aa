"""Pictures that go out, and those that come in: sizes, formats, masks. It does not know models or HTTP."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from tessera.config.merging import short
from tessera.data.pictures import decode_bytes, resized
from tessera.errors import ConfigError, DataError
from tessera.generate.picture import Picture, write_png
from tessera.serve.orders import Beginning

Format = Literal["png", "webp", "jpeg"]
TYPES: dict[str, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
TRANSPARENT = 128
"""Less of alpha than this, and it is to be drawn."""


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


def beginning(image: bytes, mask: bytes | None, pixels: int, channels: int, grid: int, most: int) -> Beginning:
    """What an edit keeps: the top rows that the mask, or without one the picture's own transparency, leaves opaque.
    Raises DataError or ConfigError for what is not a square picture, and for masks that keep anything else."""
    picture = _decoded(image, channels, most, "image")
    height, width = picture.shape[1:]
    if height != width:
        raise ConfigError(f"image has {width} x {height} pixels; send a square picture, as this model draws.")
    alpha = _decoded(image if mask is None else mask, 4, most, "mask")[3]
    if alpha.shape != (height, width):
        there = f"{alpha.shape[1]} x {alpha.shape[0]}"
        raise ConfigError(f"mask has {there} pixels and image {width} x {height}; send a mask of the same size.")
    return Beginning(resized(picture, (0, 0, height), pixels), kept_rows(alpha, grid, mask is None))


def _decoded(raw: bytes, channels: int, most: int, name: str) -> UInt8[Tensor, "C H W"]:
    try:
        return decode_bytes(raw, channels, most)
    except DataError as error:
        raise DataError(f"{name} cannot be used: {error}.") from error


def kept_rows(alpha: UInt8[Tensor, "H W"], grid: int, own: bool) -> int:
    """How many rows of codes a mask keeps. A code is drawn where any of its pixels is transparent; in reading order the
    kept ones must be whole rows at the top."""
    drawn = _cells(alpha < TRANSPARENT, grid)
    if not drawn.any():
        where = "image is opaque and there is no mask" if own else "mask is opaque everywhere"
        raise ConfigError(f"{where}: there is nothing to draw. Make what is to be drawn transparent.")
    rows = int((~drawn).all(1).long().cumprod(0).sum())
    if not drawn[rows:].all():
        raise ConfigError(
            "This model draws in reading order: it keeps whole rows at the top of a picture and draws all below them. "
            "The mask keeps something else; make it opaque down to a line, and transparent everywhere below."
        )
    return rows


def _cells(pixels: Bool[Tensor, "H W"], grid: int) -> Bool[Tensor, "G G"]:
    """Whether anything is True in each code's part of the picture."""
    height, width = (_parts(length, grid) for length in pixels.shape)
    rows = torch.stack([pixels[a:b].any(0) for a, b in height])
    return torch.stack([rows[:, a:b].any(1) for a, b in width], 1)


def _parts(length: int, count: int) -> list[tuple[int, int]]:
    """Where each of `count` parts begins and ends; none is empty, and a pixel on a border belongs to both."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
