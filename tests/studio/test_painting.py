"""A part of a picture is painted over in a real browser, by pointer and by keys, and drawn anew: the rest stays.

TESSERA_SCREENSHOTS=docs TESSERA_STUDIO_ANY=runs/any also writes the picture of docs/studio.md, of a run of any order.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from small_runs import PRIOR, dvae_config, go, prior_config
from studio.test_journey import SHOTS, Watched, browser, serving, shoot  # noqa: F401
from tessera.config import AnyOrderConfig

ANY_RUN = os.environ.get("TESSERA_STUDIO_ANY", "")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def address(bird_folder: Path, tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("studio")
    go(dvae_config(bird_folder, folder / "dvae"))
    config = prior_config(bird_folder, folder / "runs" / "any", folder / "dvae")
    go(dataclasses.replace(config, model=AnyOrderConfig(transformer=PRIOR.transformer)))
    (folder / "pictures").mkdir()
    with serving(folder, "pictures") as own:
        wait_for("tiny runs are read", lambda: json.load(urlopen(f"{own}/v1/models"))["data"])
        yield own


def wait_for(what: str, holds: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.2)


def stroke(page, first: tuple[int, int], last: tuple[int, int]) -> None:
    """Drag from the middle of a square to the middle of another, of 4 x 4; rows and columns."""
    box = page.locator(".t-board").bounding_box()
    middles = [
        (box["x"] + (c + 0.5) * box["width"] / 4, box["y"] + (r + 0.5) * box["height"] / 4) for r, c in (first, last)
    ]
    page.mouse.move(*middles[0])
    page.mouse.down()
    page.mouse.move(*middles[1], steps=8)
    page.mouse.up()


def test_what_is_painted_is_drawn_anew_and_nothing_else(browser, address):  # noqa: F811
    seen = Watched(browser, address)
    page = seen.page
    seen.open("/draw")
    page.get_by_label("What to draw").fill("a red bird")
    page.keyboard.press("Enter")
    page.get_by_text("Done.").wait_for(timeout=60_000)
    seen.open("/edit")
    page.get_by_text("4 of 16 squares are drawn anew.").wait_for()
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("0 of 16 squares are drawn anew.").wait_for()
    stroke(page, (0, 0), (0, 1))
    page.get_by_text("2 of 16 squares are drawn anew.").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.get_by_text("3 of 16 squares are drawn anew.").wait_for()
    stroke(page, (1, 1), (1, 1))
    page.get_by_text("2 of 16 squares are drawn anew.").wait_for()
    source = page.locator(".t-canvas img").get_attribute("src")
    page.get_by_role("button", name="Draw the rest").click()
    page.get_by_text("Done.").wait_for(timeout=60_000)
    drawn = [tile.get_attribute("src") for tile in page.locator(".t-now img").all()]
    before, *after = (
        np.array(Image.open(io.BytesIO(page.request.get(f"{address}{s}").body()))) for s in [source, *drawn]
    )
    side, half = before.shape[0], before.shape[0] // 2
    kept = np.ones(before.shape[:2], bool)
    kept[: side // 4 + side // 8, : half + side // 8] = False
    assert len(after) == 4
    for picture in after:
        assert np.array_equal(picture[kept], before[kept])
    assert any(not np.array_equal(picture, before) for picture in after)
    seen.check()


def test_it_can_be_painted_on_at_the_width_of_a_telephone(browser, address):  # noqa: F811
    seen = Watched(browser, address, 390, has_touch=True)
    seen.open("/edit")
    seen.page.get_by_text("4 of 16 squares are drawn anew.").wait_for()
    box = seen.page.locator(".t-board").bounding_box()
    seen.page.touchscreen.tap(box["x"] + 5, box["y"] + 5)
    seen.page.get_by_text("5 of 16 squares are drawn anew.").wait_for()
    seen.check()


@pytest.mark.skipif(not (SHOTS and ANY_RUN), reason="TESSERA_SCREENSHOTS and TESSERA_STUDIO_ANY are not set")
def test_the_screenshot(browser, tmp_path):  # noqa: F811
    shutil.copytree(ANY_RUN, tmp_path / "runs" / "birds")
    (tmp_path / "pictures").mkdir()
    with serving(tmp_path, "pictures") as own:
        wait_for("the run is read", lambda: json.load(urlopen(f"{own}/v1/models"))["data"])
        seen = Watched(browser, own)
        page = seen.page
        seen.open("/draw")
        page.get_by_label("What to draw").fill("a small red bird with black wings on a wire")
        page.get_by_label("Seed").fill("3")
        page.keyboard.press("Enter")
        page.get_by_text("Done.").wait_for(timeout=60_000)
        seen.open("/edit")
        page.get_by_text("16 of 64 squares are drawn anew.").wait_for()
        page.get_by_label("Prompt").fill("a small yellow bird with blue wings on a wire")
        page.get_by_role("button", name="Draw the rest").click()
        page.get_by_text("Done.").wait_for(timeout=60_000)
        page.mouse.move(5, 500)
        page.wait_for_timeout(600)
        shoot(seen, "paint")
        seen.check()
