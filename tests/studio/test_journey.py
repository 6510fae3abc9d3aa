"""The Studio as a person meets it, in a real browser: from a folder of pictures to a picture that was drawn and kept.

TESSERA_SCREENSHOTS=docs TESSERA_STUDIO_RUN=runs/demo also writes the pictures of docs/studio.md, of what `tessera demo`
left behind.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tessera.journeys.birds import draw_folder

sync_api = pytest.importorskip("playwright.sync_api", reason="the journey needs playwright: pip install -e '.[dev]'")

BUDGET = "60s"
PROMPT = "a small red bird with black wings"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SHOTS, RUN = os.environ.get("TESSERA_SCREENSHOTS", ""), os.environ.get("TESSERA_STUDIO_RUN", "")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def chromium(play) -> str:
    """A Chromium of this machine, or playwright's own, which is fetched once where that can be."""
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    own = Path(play.chromium.executable_path)
    if not own.is_file():
        install = [sys.executable, "-m", "playwright", "install", "chromium"]
        told = subprocess.run(install, capture_output=True, text=True, timeout=600)
        if told.returncode or not own.is_file():
            pytest.skip(f"there is no Chromium here, and it cannot be fetched: {told.stderr.strip()[-200:]}")
    return str(own)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("studio")
    draw_folder(folder / "pictures" / "birds", 150)
    (folder / "pictures" / "birds" / "00003.txt").write_text("<script>document.title = 'broken in'</script> a bird\n")
    (folder / "pictures" / "birds" / "lonely.png").write_bytes(b"not a picture")
    return folder


@contextmanager
def serving(folder: Path, *pictures: str) -> Iterator[str]:
    """The Studio of a folder that holds runs and pictures; its address."""
    words = ["studio", "runs", "--pictures", *pictures, "--port", "0"]
    server = subprocess.Popen([sys.executable, "-m", "tessera", *words], cwd=folder, stdout=subprocess.PIPE, text=True)
    with server:
        assert server.stdout
        said = server.stdout.readline()
        try:
            yield re.search(r"http://\S+", said)[0]  # type: ignore[index]
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0


@pytest.fixture(scope="module")
def address(pictures) -> Iterator[str]:
    with serving(pictures, "pictures") as own:
        yield own


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as play:
        own = play.chromium.launch(executable_path=chromium(play), args=FLAGS)
        yield own
        own.close()


class Watched:
    """A page that notes what goes wrong, and whom it asks."""

    def __init__(self, browser, address: str, width: int = 1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.page, self.address = context.new_page(), address
        self.wrong, self.foreign = [], []
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._asked)
        self.page.on("websocket", self._asked)

    def _asked(self, request) -> None:
        own = (self.address, self.address.replace("http", "ws"), "data:", "blob:")
        if not request.url.startswith(own):
            self.foreign.append(request.url)

    def open(self, path: str) -> None:
        self.page.goto(f"{self.address}{path}")
        self.ready()

    def ready(self) -> None:
        """The page is there and listens: what is clicked before that is lost."""
        self.page.wait_for_selector("h1")
        self.page.wait_for_function("() => window.socket?.connected")
        self.page.wait_for_timeout(600)

    def check(self) -> None:
        assert self.wrong == []
        assert self.foreign == []
        assert "broken in" not in self.page.title()
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off"


def steps(page) -> int:
    """The step that the page shows."""
    shown = page.locator("dt", has_text=re.compile("^step$")).locator("xpath=following-sibling::dd")
    return int(shown.first.inner_text().replace(",", "")) if shown.count() else 0


def curve(page) -> str:
    """The first chart, as it is drawn."""
    return page.evaluate("document.querySelector('canvas').toDataURL()")


def test_from_a_folder_to_a_picture_that_stays(browser, address, pictures, tmp_path):
    seen = Watched(browser, address)
    page = seen.page

    # A folder is chosen, and looked at.
    seen.open("/")
    assert page.url.endswith("/folder"), "who has no run begins with pictures"
    page.get_by_role("button", name="birds").click()
    page.get_by_text("No folders in here.").wait_for()
    page.get_by_role("button", name="Look at these pictures").click()
    page.get_by_text("pictures can be learned from").wait_for(timeout=120_000)
    page.get_by_text("lonely.png").wait_for()
    seen.check()

    # A run is started with the keyboard, and its curve moves.
    page.get_by_role("link", name="Go to Train").click()
    page.wait_for_url("**/train?*")
    seen.ready()
    time = page.get_by_label("Time", exact=True)
    time.fill(BUDGET)
    time.press("Enter")
    page.get_by_text("learns pictures").first.wait_for(timeout=120_000)
    page.wait_for_selector("canvas")
    first = curve(page)
    page.wait_for_function(
        "first => document.querySelector('canvas').toDataURL() !== first", arg=first, timeout=120_000
    )
    before = now = steps(page)
    for _ in range(120):
        page.wait_for_timeout(500)
        if (now := steps(page)) > before:  # a stage that begins shows no step
            break
    assert now > before > 0
    assert curve(page) != first
    page.reload()
    seen.ready()
    page.get_by_text("learns").first.wait_for(timeout=30_000)

    # It is stopped, and goes on from there.
    page.get_by_role("button", name="Stop and save").click()
    page.get_by_role("button", name="Go on").wait_for(timeout=120_000)
    assert (pictures / "runs" / "birds" / "tokenizer" / "latest").is_file()
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Stop and save").wait_for(timeout=120_000)
    page.get_by_text("finished").first.wait_for(timeout=3_600_000)
    assert (pictures / "runs" / "birds" / "report.html").is_file()
    seen.check()

    # A picture is drawn, kept and downloaded.
    page.get_by_role("link", name="Draw from it").wait_for(timeout=30_000)
    page.wait_for_timeout(5000)
    page.get_by_role("link", name="Draw from it").click()
    page.wait_for_url("**/draw?*")
    seen.ready()
    prompt = page.get_by_label("What to draw")
    prompt.fill(PROMPT)
    page.get_by_label("Seed").fill("7")
    prompt.press("Enter")
    page.wait_for_selector(".t-now img[src^='data:image/png']")  # the first rows
    page.get_by_text("Done.").wait_for(timeout=60_000)
    tiles = page.locator(".t-gallery img")
    assert tiles.count() == 4
    page.locator(".t-gallery button").last.click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "bird.png")
    with Image.open(tmp_path / "bird.png") as image:
        words = image.text  # type: ignore[attr-defined]
    assert words["prompt"] == PROMPT
    assert words["seed"] in {"7", "8", "9", "10"}
    assert words["run"] == "birds"
    page.get_by_role("button", name="Close").click()
    page.reload()
    page.wait_for_selector(".t-gallery img")
    assert page.locator(".t-gallery img").count() == 4, "the gallery stays"
    seen.check()

    # An edit, and the judgement.
    seen.open("/edit")
    page.get_by_role("button", name="Draw the rest").click()
    page.get_by_text("Done.").wait_for(timeout=60_000)
    seen.check()
    seen.open("/judge")
    page.get_by_text("Does it copy?").wait_for()
    short = page.get_by_text("These are the short figures")
    assert short.count() == 1
    page.get_by_role("button", name="Evaluate thoroughly").click()
    short.wait_for(state="detached", timeout=3_000_000)
    assert (pictures / "runs" / "birds" / "evaluation" / "evaluation.html").is_file()
    assert page.get_by_role("button", name="Evaluate thoroughly").is_enabled()
    with page.expect_popup() as whole:
        page.get_by_role("link", name="The whole evaluation").click()
    whole.value.get_by_text("true caption first among").first.wait_for()
    seen.check()


def test_it_fits_a_telephone_in_the_dark(browser, address):
    """After the journey, so that there is something on every page."""
    seen = Watched(browser, address, 390, color_scheme="dark")
    for path in ("/folder", "/train", "/draw", "/edit", "/judge"):
        seen.open(path)
        assert "rgb(22, 24, 27)" in seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        seen.check()


def test_a_page_of_another_site_gets_nothing(browser, address, tmp_path):
    """Neither its scripts nor its WebSockets reach the Studio."""
    page = browser.new_context().new_page()
    page.route("http://evil.example/**", lambda route: route.fulfill(content_type="text/html", body="<h1>evil</h1>"))
    page.goto("http://evil.example/")
    script = """async address => {
        const socket = new WebSocket(address.replace('http', 'ws') + '/_nicegui_ws/socket.io/?EIO=4&transport=websocket')
        const opened = await new Promise(done => { socket.onopen = () => done(true); socket.onerror = () => done(false) })
        const fetched = await fetch(address + '/v1/models').then(r => r.status, () => 'refused')
        return [opened, fetched]
    }"""
    assert page.evaluate(script, address) == [False, "refused"]


def shoot(seen: Watched, name: str) -> None:
    """A picture of what is seen."""
    path = Path(SHOTS) / f"studio-{name}.png"
    seen.page.screenshot(path=path)
    with Image.open(path) as image:
        image.convert("RGB").save(path, optimize=True)
    if path.stat().st_size >= 300_000:
        with Image.open(path) as image:
            image.quantize(255, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < 300_000


@pytest.mark.skipif(not (SHOTS and RUN), reason="TESSERA_SCREENSHOTS and TESSERA_STUDIO_RUN are not set")
def test_the_screenshots(browser, tmp_path):
    (tmp_path / "pictures").mkdir()
    shutil.copytree(RUN, tmp_path / "runs" / "demo")
    draw_folder(tmp_path / "pictures" / "birds", 1000)
    (tmp_path / "pictures" / "birds" / "lonely.png").write_bytes(b"not a picture")
    with serving(tmp_path, "pictures", "runs/demo/pictures") as address:
        seen = Watched(browser, address)
        page = seen.page
        seen.open("/folder")
        page.get_by_role("button", name="birds", exact=True).click()
        page.get_by_text("No folders in here.").wait_for()
        page.get_by_role("button", name="Look at these pictures").click()
        page.get_by_text("pictures can be learned from").wait_for(timeout=120_000)
        shoot(seen, "pictures")
        page.wait_for_timeout(10_000)
        seen.open("/draw")
        page.get_by_label("What to draw").fill(PROMPT)
        page.get_by_label("Seed").fill("7")
        page.keyboard.press("Enter")
        page.get_by_text("Done.").wait_for(timeout=60_000)
        page.get_by_label("What to draw").fill("a large blue bird with yellow wings sitting on a wire")
        page.keyboard.press("Enter")
        page.get_by_text("Done.").wait_for(timeout=60_000)
        page.wait_for_timeout(1000)
        shoot(seen, "draw")
        seen.open("/edit")
        page.get_by_label("Prompt").fill("a bird with a red belly standing on the ground")
        page.get_by_role("button", name="Draw the rest").click()
        page.get_by_text("Done.").wait_for(timeout=60_000)
        page.mouse.move(5, 500)
        page.wait_for_timeout(600)
        shoot(seen, "edit")
        seen.open("/judge")
        shoot(seen, "judge")
        phone = Watched(browser, address, 390, color_scheme="dark")
        phone.open("/draw")
        shoot(phone, "telephone")
        seen.open("/train?run=demo")
        page.get_by_label("Time in all").fill("1h")
        page.get_by_role("button", name="Train longer").click()
        page.get_by_text("learns words").wait_for(timeout=60_000)
        page.mouse.move(5, 500)
        page.wait_for_timeout(1500)
        shoot(seen, "train")
        page.get_by_role("button", name="Stop and save").click()
        page.get_by_role("button", name="Train longer").wait_for(timeout=120_000)
        seen.check()
