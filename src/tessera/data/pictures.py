"""Picture files as uint8 tensors, whole or cropped and resized. It knows no captions."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from tessera.errors import DataError
from tessera.files.regular import open_regular, read_regular

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
"""The decoders of Pillow that are used, whatever a file's name says. Others start programs (EPS)."""
OTHERS = frozenset(
    {".avif", ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jxl", ".jpe", ".apng", ".svg", ".psd",
     ".tga", ".ico", ".eps", ".exr", ".hdr", ".dds", ".dng", ".cr2", ".nef", ".arw"}
)  # fmt: skip
"""Suffixes of pictures that are not read."""
LARGEST = 80_000_000
"""Largest number of pixels; a larger picture is refused as a decompression bomb."""
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
ORIENTATION, SAMPLE_FORMAT = 274, 339  # tags of EXIF and TIFF


@dataclass(frozen=True)
class Member:
    """A file inside a tar; it is read like a path."""

    shard: Path
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        with open_regular(self.shard) as file:
            file.seek(self.offset)
            found = file.read(self.size)
        if len(found) < self.size:
            raise DataError(f"{self.shard} was cut off since it was indexed")
        return found

    def stat(self) -> os.stat_result:
        return self.shard.stat()

    def __str__(self) -> str:
        return f"{self.shard}:{self.offset}+{self.size}"

    def __fspath__(self) -> str:
        return str(self)


def place(text: str) -> Path | Member:
    """A picture's place from its text form (`str`)."""
    match = re.fullmatch(r"(.*\.tar[^:]*):(\d+)\+(\d+)", text)
    return Member(Path(match[1]), int(match[2]), int(match[3])) if match else Path(text)


def read(path: Path | Member, channels: int = 3) -> UInt8[Tensor, "C H W"]:
    """The picture as `decode` gives it. Raises DataError that names the file."""
    try:
        return decode(path, channels)
    except DataError as error:
        raise DataError(f"The picture {path} cannot be used: {error}.") from error


def decode(path: Path | Member, channels: int = 3) -> UInt8[Tensor, "C H W"]:
    """A picture, turned as its EXIF says, in 1, 2, 3 or 4 channels. Without alpha, transparency becomes white.

    Raises DataError with only the reason if the file is not a whole picture of sane size.
    """
    with _telling_why(LARGEST):
        raw = read_regular(path) if isinstance(path, str | Path) else path.read_bytes()
    return decode_bytes(raw, channels)


def decode_bytes(raw: bytes, channels: int = 3, largest: int = LARGEST) -> UInt8[Tensor, "C H W"]:
    """The same for the content of a file, of at most `largest` pixels."""
    with _telling_why(largest), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not raw:
            raise DataError("an empty file")
        return torch.from_numpy(_decode(raw, channels, largest)).permute(2, 0, 1)


@contextmanager
def _telling_why(largest: int) -> Iterator[None]:
    """Whatever goes wrong with a picture becomes a DataError with only the reason."""
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError("not a picture, whatever its name says") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"more than the {largest:,} pixels that are accepted") from error
    except Exception as error:  # damaged bytes make decoders raise nearly every kind there is
        raise DataError(f"not a readable picture: {str(error) or type(error).__name__}") from error


def _decode(raw: bytes, channels: int, largest: int) -> np.ndarray:
    """uint8 [H, W, C]."""
    picture = Image.open(io.BytesIO(raw), formats=FORMATS)  # the header only
    _refuse_bombs(picture.width, picture.height, largest)
    turned = picture.getexif().get(ORIENTATION, 1) != 1
    if picture.format == "JPEG" and picture.mode in ("RGB", "L") and not turned and channels in (1, 3):
        height, width = simplejpeg.decode_jpeg_header(raw)[:2]  # where there are two headers, the decoders differ
        _refuse_bombs(int(width), int(height), largest)
        return simplejpeg.decode_jpeg(raw, "RGB" if channels == 3 else "GRAY")  # strict: a cut file raises
    picture.load()
    picture = _convert(ImageOps.exif_transpose(picture), channels)
    return np.array(picture).reshape(picture.height, picture.width, channels)


def _refuse_bombs(width: int, height: int, largest: int) -> None:
    if width * height > largest:
        raise DataError(f"{width} x {height} pixels, more than the {largest:,} that are accepted")


def _convert(picture: Image.Image, channels: int) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":  # 16 bits and more a channel
        picture = Image.fromarray(_eight_bits(picture))
    if "transparency" in picture.info or picture.mode in ("LA", "PA", "RGBa", "La"):
        picture = picture.convert("RGBA")
    if picture.mode == "RGBA" and channels in (1, 3):
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB" if channels in (1, 3) else "RGBA").convert(MODES[channels])


def _eight_bits(picture: Image.Image) -> np.ndarray:
    """Greys of 16 bits and more, and floats, as uint8 [H, W].

    White is 65,535 where 16 bits are stored. In 32 bits it is the first of 255, 65,535 and the largest value that
    nothing exceeds; in floats 1, or the largest value. Negative values lower black; NaN is black, infinity white.
    """
    values = np.asarray(picture)
    if picture.mode == "I" and dict(getattr(picture, "tag_v2", {})).get(SAMPLE_FORMAT) == (1,):
        values = values.view(np.uint32)  # Pillow has only signed ones
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise DataError("none of its values is a finite number")
    largest, black = float(finite.max()), min(0.0, float(finite.min()))
    steps = {"F": (1.0,), "I": (255.0, 65535.0)}.get(picture.mode, (65535.0,))
    white = next((step for step in steps if largest <= step), largest)
    values = np.nan_to_num((values - black) / (white - black), nan=0.0, posinf=1.0, neginf=0.0)
    return (values * 255).round().clip(0, 255).astype(np.uint8)


def random_square(height: int, width: int, smallest: float, noise: np.random.Generator) -> tuple[int, int, int]:
    """Top, left and side of a square that covers `smallest` ... 1 of the largest square's area."""
    side = max(1, round(min(height, width) * float(noise.uniform(smallest, 1.0)) ** 0.5))
    return int(noise.integers(height - side + 1)), int(noise.integers(width - side + 1)), side


def middle_square(height: int, width: int) -> tuple[int, int, int]:
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side


def resized(picture: UInt8[Tensor, "C H W"], square: tuple[int, int, int], pixels: int) -> UInt8[Tensor, "C S S"]:
    """A square of the picture, `pixels` on a side, by antialiased bicubic interpolation."""
    top, left, side = square
    part = picture[None, :, top : top + side, left : left + side]
    if side == pixels:
        return part[0].contiguous()
    # uint8 in channels_last, as decoders give it, is torch's fast path.
    return F.interpolate(part, (pixels, pixels), mode="bicubic", antialias=True)[0].contiguous()


def grid_image(pixels: Tensor, columns: int, gap: int = 2) -> Image.Image:
    """Pictures [B, C, S, S] in 0 ... 1 side by side, on white."""
    pixels = pixels.detach().float().cpu().clamp(0, 1)
    b, _, s = pixels.shape[:3]
    rows = -(-b // columns)
    sheet = Image.new("RGB", (columns * (s + gap) + gap, rows * (s + gap) + gap), "white")
    for i, picture in enumerate(pixels):
        place = (gap + i % columns * (s + gap), gap + i // columns * (s + gap))
        tile = to_image(picture)
        sheet.paste(tile, place, tile.getchannel("A") if tile.mode in ("RGBA", "LA") else None)
    return sheet


def to_image(picture: Tensor) -> Image.Image:
    """A picture [C, S, S] in 0 ... 1 as a PIL image."""
    array = (picture.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
