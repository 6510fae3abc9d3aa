"""The look at a data set before anything is learned from it."""

import io
import os
import time

import pytest
from PIL import Image

from small_data import folder
from tessera.data.check import check


def test_links_to_nowhere_and_to_themselves_and_pipes_hold_nobody_up(tmp_path):
    data = folder(tmp_path)
    (data / "x.json").symlink_to("nowhere")
    for name in ("loop.png", "loop"):
        (data / name).symlink_to(name)
    os.mkfifo(data / "y.json")
    os.mkfifo(data / "metadata.csv")
    os.mkfifo(data / "pipe.png")
    (data / "pipe.txt").write_text("waits for ever")
    began = time.monotonic()
    health = check(str(data))
    assert [p.key for p in health.pairs] == ["good.png"]
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(("side", "pixels"), [(16, 16), (32, 32), (63, 32), (64, 64), (128, 128), (500, 256)])
def test_pictures_are_learned_at_their_own_size(side, pixels, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side + 9)).save(buffer, "PNG")
    assert check(str(folder(tmp_path, good__png=buffer.getvalue()))).settings()["pixels"] == pixels
