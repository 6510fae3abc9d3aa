"""Where drawn pictures go: a folder for each prompt, one contact sheet for all. It does not know the model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from tessera.config.merging import read_json
from tessera.errors import ConfigError
from tessera.files.atomic import write_whole
from tessera.files.claim import claim
from tessera.files.own import MARKER, TEMPORARY, sweep
from tessera.generate.picture import Picture, save_png


def folder_name(prompt: str, taken: set[str]) -> str:
    """A file-system name for a prompt: letters, digits and _, never a path, never one that is already taken."""
    stem = re.sub(r"[^\w]+", "_", prompt.lower()).strip("_")[:60].strip("_") or "picture"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    taken.add(name)
    return name


@dataclass(frozen=True, kw_only=True)
class About:
    """What prompt.json holds."""

    prompt: str


ABOUT = "prompt.json"


def prompt_folder(out: Path, prompt: str) -> Path:
    """The folder below `out` for a prompt; prompt.json inside says whose it is, so that no other prompt takes it."""
    taken: set[str] = set()
    while True:
        folder = out / folder_name(prompt, taken)
        if os.path.lexists(folder) and (not folder.is_dir() or (folder / ABOUT).is_dir()):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if _whose(folder, prompt) == prompt:
            claim(folder, "prompt", lambda folder: True)
            sweep(folder)
            write_whole(folder / ABOUT, json.dumps({"prompt": prompt}))
            return folder


def _whose(folder: Path, prompt: str) -> str:
    """The prompt that a folder belongs to. Where a killed process left no whole prompt.json, the pictures tell it; an
    empty folder belongs to the prompt that asks."""
    try:
        return read_json(folder / ABOUT, About).prompt
    except ConfigError:
        others = {words_of(p).get("prompt", "") for p in folder.iterdir() if p.name != ABOUT and not own(p.name)}
        return prompt if others <= {prompt} else ""


def own(name: str) -> bool:
    """Whether this program gives files beside the pictures such a name."""
    return name == MARKER or bool(TEMPORARY.fullmatch(name))


def words_of(path: Path) -> dict[str, str]:
    """The words in a picture that this program drew; empty for other files."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            words = {str(key): str(value) for key, value in picture.info.items()}
    except (OSError, ValueError, SyntaxError):
        return {}
    return words if words.get("software") == "Tessera" else {}


def replaceable(path: Path) -> bool:
    """Whether a picture may be written there: the path is free, or holds a picture that this program drew."""
    return not os.path.lexists(path) or (path.is_file() and (not path.stat().st_size or bool(words_of(path))))


def keep_others(folder: Path, seeds: range) -> None:
    """Raise ConfigError where a picture with one of the seeds would replace a file of the user's."""
    for path in folder.glob("*.png"):
        number = int(path.stem) if re.fullmatch(r"[0-9]{1,19}", path.stem) else -1
        if number in seeds and path.stem == str(number) and not replaceable(path):
            raise ConfigError(f"{path} was not drawn by Tessera and is in the way. Move it, or give another --out.")


def began(out: Path) -> bool:
    """Whether a release without markers drew into a folder: one of its subfolders names its prompt."""
    for about in out.glob(f"*/{ABOUT}"):
        with suppress(ConfigError):
            return bool(read_json(about, About))
    return False


def write_sheet(out: Path, pictures: Sequence[Picture], **options: Any) -> Path:
    """Write a contact sheet into a folder, under the first of its names that the user has not taken."""
    names = chain(["contact-sheet.png"], (f"contact-sheet-{i}.png" for i in count(2)))
    path = next(out / name for name in names if replaceable(out / name))
    save_png(contact_sheet(pictures, **options), path, {})
    return path


MOST = 256
"""The most pictures on a sheet."""


def contact_sheet(pictures: Sequence[Picture], columns: int = 0, tile: int = 128, captions: bool = True) -> Image.Image:
    """Pictures in rows, each with its prompt below it; the first MOST of them."""
    pictures = pictures[:MOST]
    columns = columns or min(len(pictures), 8)
    font = ImageFont.load_default(10)
    text_height = 62 if captions else 0
    cell = (tile + 8, tile + text_height + 8)
    sheet = Image.new("RGB", (columns * cell[0] + 8, -(-len(pictures) // columns) * cell[1] + 8), "white")
    pen = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        x, y = 8 + i % columns * cell[0], 8 + i // columns * cell[1]
        big = picture.image.convert("RGBA").resize((tile, tile), Image.Resampling.BICUBIC)
        sheet.paste(big, (x, y), big)
        if captions:
            lines = wrap(picture.prompt, tile, lambda s: pen.textlength(s, font), 5)
            pen.multiline_text((x, y + tile + 2), "\n".join(lines), fill="#333333", font=font, spacing=1)
    return sheet


def wrap(text: str, width: float, length: Callable[[str], float], most: int) -> list[str]:
    """The first `most` lines of a text, none longer than `width`; words that are longer are broken."""
    lines: list[str] = []
    for word in text[: int(width) * most].split():  # every letter is at least one wide
        if lines and length(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        while word:
            if len(lines) == most:
                return lines
            fits = 1
            while fits < len(word) and length(word[: fits + 1]) <= width:
                fits += 1
            lines.append(word[:fits])
            word = word[fits:]
    return lines
