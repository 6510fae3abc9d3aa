"""The animation of previews."""

import base64
import io
import re

from PIL import Image

from tessera.journeys import strip
from tessera.store.run import Run


def previews(run: Run, count: int, side: int = 8) -> None:
    run.samples.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (side, side), (8 * i, 0, 0)).save(
            run.samples / f"step-{10**i if i < 8 else i * 10**8:06d}.png"
        )


def test_previews_become_frames_in_the_order_of_their_steps(tmp_path):
    run = Run(tmp_path)
    previews(run, 5)
    ((title, section),) = strip.strip(run)
    assert title == "The same captions while it learned"
    data = base64.b64decode(re.search(r"base64,([^\"]+)", section).group(1))
    assert data == (tmp_path / "learning.webp").read_bytes()
    reds = []
    with Image.open(io.BytesIO(data)) as film:
        for i in range(film.n_frames):
            film.seek(i)
            reds.append(film.convert("RGB").getpixel((4, 4))[0])
    assert len(reds) == 5
    assert reds == sorted(reds)


def test_many_previews_are_spread_evenly(tmp_path):
    run = Run(tmp_path)
    previews(run, 30)
    strip.strip(run)
    with Image.open(tmp_path / "learning.webp") as film:
        assert film.n_frames == strip.FRAMES


def test_fewer_than_two_previews_of_one_size_give_nothing(tmp_path):
    run = Run(tmp_path)
    assert strip.strip(run) == []
    previews(run, 1)
    Image.new("RGB", (9, 9)).save(run.samples / "step-000900.png")
    assert strip.strip(run) == []
    assert not (tmp_path / "learning.webp").exists()
