"""A picture and a mask, as the square that a model draws: which pixels, and so which codes, are drawn anew. It does not
know models."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from tessera.data.pictures import FORMATS, LARGEST, decode_bytes, middle_square, resized, to_image
from tessera.errors import DataError
from tessera.files.regular import read_regular

Source = str | Path | bytes | Image.Image
"""A picture: its file, the content of that, or itself."""
HALF = 128
"""Less of alpha than this, or in a mask without transparency as much of grey, and it is drawn anew."""

FINE = 4
"""A picture that is extended has at first at most so many times the pixels of the model on a side."""


class Draft(NamedTuple):
    """A picture of which a part is drawn anew."""

    pixels: UInt8[Tensor, "C S S"]
    anew: Bool[Tensor, "S S"]
    drawn: Bool[Tensor, " N"]
    """The codes of which any pixel is drawn anew."""

    def before(self) -> Image.Image:
        """The picture, grey where it is drawn anew."""
        return to_image(torch.where(self.anew, 0.8, self.pixels.float() / 255))

    def restored(self, drawn: Float[Tensor, "C S S"]) -> Float[Tensor, "C S S"]:
        """A drawn picture in 0 ... 1 with the own pixels where nothing was asked for, and a seam between them that is
        half a code wide."""
        seam = max(1, round(self.anew.shape[1] / len(self.drawn) ** 0.5 / 2))
        weight = softened(self.anew, seam)
        return weight * drawn + (1 - weight) * self.pixels.float() / 255


def draft(
    picture: UInt8[Tensor, "C H W"], anew: Bool[Tensor, "h w"], sides: Sequence[float], pixels: int, grid: int
) -> Draft:
    """A picture as a square of so many `pixels`, of which those of a mask are drawn anew, and what lies beyond its
    `sides` (left, right, top, bottom, as shares of it). A mask of another size is stretched, and a picture that is not
    square loses what lies outside its middle, both with a warning."""
    if anew.shape != picture.shape[1:]:
        was, now = (f"{size[1]} x {size[0]}" for size in (anew.shape, picture.shape[1:]))
        warnings.warn(f"The mask has {was} pixels and the picture {now}; it is stretched to that.", stacklevel=2)
        anew = F.interpolate(anew[None, None].float(), picture.shape[1:], mode="nearest-exact")[0, 0] > 0.5
    if any(sides):
        picture, anew = extended(*shrunk(picture, anew, FINE * pixels), sides)
    height, width = anew.shape
    top, left, side = square = middle_square(height, width)
    if height != width:
        more = ", with what is outpainted," if any(sides) else ""
        warnings.warn(
            f"The picture{more} has {width} x {height} pixels and the model draws squares: the middle {side} x {side} "
            "is taken.", stacklevel=2,
        )  # fmt: skip
    anew = anew[top : top + side, left : left + side]
    return Draft(resized(picture, square, pixels), cells(anew, pixels), cells(anew, grid).flatten())


def opened(source: Source, channels: int, name: str, most: int = LARGEST) -> UInt8[Tensor, "C H W"]:
    """A still picture. Raises DataError, in a sentence that has its name, for anything else."""
    where = f" {source}" if isinstance(source, str | Path) else ""
    try:
        raw = content(source)
        picture = decode_bytes(raw, channels, most)
        with Image.open(io.BytesIO(raw), formats=FORMATS) as head:
            frames = getattr(head, "n_frames", 1)
    except DataError as error:
        raise DataError(f"The {name}{where} cannot be used: {error}.") from error
    if frames > 1:
        raise DataError(f"The {name}{where} moves: it holds {frames} pictures. Give one of them.")
    return picture


def content(source: Source) -> bytes:
    """The file of a picture."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | Path):
        return read_regular(Path(source).expanduser())
    file = io.BytesIO()
    source.save(file, "PNG")
    return file.getvalue()


def asked(image: Source, mask: Source | None, most: int = LARGEST) -> Bool[Tensor, "H W"]:
    """The pixels that a mask says are drawn anew: those that are transparent, or white where nothing in it is
    transparent. Without one, those that are transparent in the picture. Raises DataError for what is not a still
    picture."""
    if mask is None:
        return opened(image, 4, "image", most)[3] < HALF
    found = opened(mask, 4, "mask", most)
    clear = found[3] < HALF
    return clear if clear.any() else found[:3].float().mean(0) >= HALF


def shrunk(
    picture: UInt8[Tensor, "C H W"], anew: Bool[Tensor, "H W"], longest: int
) -> tuple[UInt8[Tensor, "C h w"], Bool[Tensor, "h w"]]:
    """The same with a longer side of at most so many pixels."""
    size = [max(1, length * longest // max(anew.shape)) for length in anew.shape]
    if max(anew.shape) <= longest:
        return picture, anew
    small = F.interpolate(picture[None], size, mode="bicubic", antialias=True)[0]
    return small, F.adaptive_max_pool2d(anew[None].float(), size)[0] > 0


def extended(
    picture: UInt8[Tensor, "C H W"], anew: Bool[Tensor, "H W"], sides: Sequence[float]
) -> tuple[UInt8[Tensor, "C h w"], Bool[Tensor, "h w"]]:
    """A picture with room beyond its sides, where its edge goes on until something is drawn there."""
    height, width = anew.shape
    left, right, top, bottom = (
        round(share * length) for share, length in zip(sides, (width, width, height, height), strict=True)
    )
    around = (left, right, top, bottom)
    grown = F.pad(picture[None].float(), around, mode="replicate")[0].to(torch.uint8)
    return grown, F.pad(anew, around, value=True)


def cells(pixels: Bool[Tensor, "H W"], count: int) -> Bool[Tensor, "G G"]:
    """Whether anything is True in each of count x count parts of a picture."""
    height, width = (_parts(length, count) for length in pixels.shape)
    rows = torch.stack([pixels[a:b].any(0) for a, b in height])
    return torch.stack([rows[:, a:b].any(1) for a, b in width], 1)


def _parts(length: int, count: int) -> list[tuple[int, int]]:
    """Where each of `count` parts begins and ends; none is empty, and a pixel on a border belongs to both."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def spread(drawn: Bool[Tensor, " N"], pixels: int) -> Bool[Tensor, "S S"]:
    """The pixels of codes."""
    grid = round(len(drawn) ** 0.5)
    return F.interpolate(drawn.view(1, 1, grid, grid).float(), (pixels, pixels), mode="nearest-exact")[0, 0] > 0.5


def softened(anew: Bool[Tensor, "S S"], width: int) -> Float[Tensor, "S S"]:
    """1 where it is True, falling to 0 in so many pixels outside."""
    inside = anew[None, None].float()
    rings = [F.max_pool2d(inside, 2 * k + 1, 1, k) * (1 - k / (width + 1)) for k in range(width + 1)]
    return torch.stack(rings).amax(0)[0, 0]
