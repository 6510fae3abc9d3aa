"""How a run came to draw: its previews of the same captions, one after the other. It knows no training."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from tessera.files.atomic import write_whole
from tessera.store.run import Run

FRAMES = 24
"""At most; where there are more previews these are spread evenly, the first and the last among them."""
FIRST, EACH, LAST = 800, 400, 2_000
"""Milliseconds for which a frame stands."""


def strip(run: Run) -> list[tuple[str, str]]:
    """Write learning.webp, an animation that repeats, of a run's previews; returns a section of the report, or nothing
    where there are fewer than two previews of one size."""
    paths = sorted(run.samples.glob("step-*.png"), key=lambda path: int(path.stem.removeprefix("step-")))
    frames = [_frame(path) for path in _spread(paths)]
    frames = [frame for frame in frames if frame.size == frames[-1].size]
    if len(frames) < 2:
        return []
    buffer = io.BytesIO()
    times = [FIRST, *[EACH] * (len(frames) - 2), LAST]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=times, loop=0, quality=85)
    with run.written():
        write_whole(run.folder / "learning.webp", buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img class="wide" alt="previews, one after the other" src="data:image/webp;base64,{data}">'
    return [("The same captions while it learned", image)]


def _frame(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _spread(paths: list[Path]) -> list[Path]:
    if len(paths) <= FRAMES:
        return paths
    return [paths[round(i * (len(paths) - 1) / (FRAMES - 1))] for i in range(FRAMES)]
