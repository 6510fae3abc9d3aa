"""Where drawn pictures are laid out: a folder for each prompt, a sheet for all. It knows no model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tessera.generate.pipeline import Picture


def folder_name(prompt: str, taken: set[str]) -> str:
    """A file-system name for a prompt: letters, digits and _, never a path, never one that is already taken."""
    stem = re.sub(r"[^\w]+", "_", prompt.lower()).strip("_")[:60].strip("_") or "picture"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    taken.add(name)
    return name


def prompt_folder(out: Path, prompt: str) -> Path:
    """The folder below `out` for a prompt; prompt.json inside says whose it is, so that no other prompt takes it."""
    taken: set[str] = set()
    while True:
        folder = out / folder_name(prompt, taken)
        about = folder / "prompt.json"
        if not about.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            about.write_text(json.dumps({"prompt": prompt}), "utf-8")
            return folder
        if json.loads(about.read_text("utf-8")).get("prompt") == prompt:
            return folder


def contact_sheet(pictures: Sequence[Picture], columns: int = 0, tile: int = 128, captions: bool = True) -> Image.Image:
    """Pictures in rows, each with its prompt below it."""
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
            lines = wrap(picture.prompt, tile, lambda s: pen.textlength(s, font))
            pen.multiline_text((x, y + tile + 2), "\n".join(lines[:5]), fill="#333333", font=font, spacing=1)
    return sheet


def wrap(text: str, width: float, length: Callable[[str], float]) -> list[str]:
    """Lines of words that are no longer than `width`."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if length(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
