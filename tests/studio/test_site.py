"""The files beside the pages, and what a page makes of words that look like HTML. One site for all, as in a process."""

from __future__ import annotations

import asyncio
import os

import httpx
import pytest
from PIL import Image

from small_server import bench, pipeline
from tessera.config import StudioConfig
from tessera.generate.picture import Picture
from tessera.serve.keys import doorman
from tessera.serve.measures import Measures
from tessera.serve.worker import Worker
from tessera.studio.catalogue import Catalogue
from tessera.studio.drawing import Easel
from tessera.studio.gallery import Gallery
from tessera.studio.gate import Gate
from tessera.studio.places import Places
from tessera.studio.processes import Processes
from tessera.studio.site import site
from tessera.studio.studio import Studio

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Studio:
    folder = tmp_path_factory.mktemp("site")
    (folder / "pictures").mkdir()
    run = folder / "runs" / "birds"
    (run / "samples").mkdir(parents=True)
    (run / ".tessera").write_text('{"kind": "run"}')
    (run / "config.json").write_text('{"model": {"kind": "t2i"}}')
    (run / "report.html").write_text("<script>alert(1)</script>")
    Image.new("RGB", (4, 4)).save(run / "samples" / "step-000001.png")
    (folder / "secret.png").write_bytes(b"secret")
    os.symlink(folder / "secret.png", run / "samples" / "step-000002.png")
    places = Places.of(str(folder / "runs"), [str(folder / "pictures")])
    config, measures = StudioConfig(), Measures()
    worker = Worker({"birds": bench(pipeline(), name="birds")})
    own = folder / "runs" / "studio"
    return Studio(
        places, config, Easel(worker, config.limits), Gallery(own / "gallery"), Processes(own),
        Catalogue(places, config, worker, measures),
    )  # fmt: skip


@pytest.fixture(scope="module")
def get(studio):
    async def nothing() -> None: ...

    app = site(studio, nothing)
    gate, loop = Gate(app, doorman(""), 10_000), asyncio.new_event_loop()
    life = app.router.lifespan_context(app)
    loop.run_until_complete(life.__aenter__())

    async def go(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://127.0.0.1:1") as client:
            return await client.get(path)

    yield lambda path: loop.run_until_complete(go(path))
    loop.run_until_complete(life.__aexit__(None, None, None))
    loop.close()


def test_pictures_of_runs_and_of_the_gallery_are_given(studio, get):
    kept = studio.gallery.keep(Picture(Image.new("RGB", (8, 8)), EVIL, 1, "birds"))
    assert get(kept.url).headers["content-type"] == "image/png"
    assert "attachment" in get(f"{kept.url}?download=true").headers["content-disposition"]
    assert get("/studio/preview/birds/prior/step-000001.png").status_code == 200
    assert get("/").headers["location"] == "/draw"


@pytest.mark.parametrize(
    "path",
    [
        "/studio/gallery/../../../secret.png", "/studio/gallery/%2e%2e%2f%2e%2e%2fsecret.png", "/studio/gallery/x.png",
        "/studio/preview/birds/prior/step-000002.png", "/studio/preview/birds/prior/..%2f..%2f..%2fsecret.png",
        "/studio/preview/birds/else/step-000001.png", "/studio/preview/../prior/step-000001.png",
        "/studio/preview/%2e%2e/prior/step-000001.png", "/studio/page/birds/config.json", "/studio/page/studio/report",
        "/studio/page/birds/evaluation", "/studio/preview/birds/prior/%00.png",
    ],
)  # fmt: skip
def test_nothing_else_of_the_disk_is_given(get, path):
    answer = get(path)
    assert answer.status_code == 404
    assert b"secret" not in answer.content


def test_pages_that_lie_in_a_run_folder_cannot_run_anything(get):
    policy = get("/studio/page/birds/report").headers["content-security-policy"]
    assert policy.startswith("sandbox;"), "and without allow-scripts"
    assert "allow-scripts" not in policy


@pytest.mark.parametrize("path", ["/draw", "/folder", "/train", "/edit", "/judge"])
def test_words_never_become_html(studio, get, path):
    """Prompts and names of files go to the browser as JSON, and there into text nodes."""
    studio.gallery.keep(Picture(Image.new("RGB", (8, 8)), EVIL, 2, "birds"))
    (studio.places.roots[0] / "<img src=x onerror=alert(3)>").mkdir(exist_ok=True)
    answer = get(path)
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    assert "<img src=x" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")


def test_the_page_that_is_shown_to_nobody_else_is_local(get):
    """Nothing on a page is asked of another host."""
    text = get("/draw").text
    assert "https://" not in text.replace("http://www.w3.org", "")
