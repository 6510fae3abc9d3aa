"""Drawing for a page: rows as they come, the picture of a seed, edits; and runs that become models."""

from __future__ import annotations

import asyncio
import io
import shutil

import pytest
from PIL import Image

from small_runs import run_folder
from small_server import AnyText, bench, pipeline
from tessera.config import Limits, SampleConfig, StudioConfig
from tessera.errors import ConfigError, TesseraError
from tessera.serve.errors import Refused
from tessera.serve.measures import Measures
from tessera.serve.orders import Made, Shown
from tessera.serve.worker import Worker
from tessera.studio import catalogue as catalogue_module
from tessera.studio.catalogue import Catalogue
from tessera.studio.drawing import Easel
from tessera.studio.places import Places
from tessera.tokens.text import Numbers


@pytest.fixture
def easel():
    worker = Worker({"tiny": bench(pipeline(AnyText(20)))})
    worker.start()
    yield Easel(worker, Limits())
    worker.stop()


def drawn(easel: Easel, run: str = "tiny", sitter=None, **fields) -> list[Shown | Made]:
    async def go():
        return [event async for event in easel.draw(run, sitter, **fields)]

    return asyncio.run(asyncio.wait_for(go(), 30))


def test_every_row_is_shown_and_the_picture_is_that_of_its_seed(easel):
    own = easel.bench("tiny")
    events = drawn(easel, prompt="abc", n=2, seed=5)
    for index in (0, 1):
        mine = [event for event in events if event.index == index]
        assert [event.number for event in mine if isinstance(event, Shown)] == list(range(own.grid - 1))
        assert isinstance(mine[-1], Made)
        alone = own.pipeline.draw(["abc"], [5 + index], SampleConfig())[0]
        assert mine[-1].picture.codes == alone.codes


def test_a_prompt_that_is_too_long_is_cut_and_that_is_told(easel):
    easel.bench("tiny").pipeline.prompts.text = pipeline(Numbers(20)).text
    assert easel.cut("tiny", "1 2 3 4 5 6 7")
    assert not easel.cut("tiny", "1 2")
    assert drawn(easel, prompt="1 2 3 4 5 6 7", n=1, seed=1)


def test_what_cannot_be_drawn_is_said_in_a_sentence(easel):
    with pytest.raises(ConfigError, match="first checkpoint"):
        drawn(easel, run="absent", prompt="a")
    with pytest.raises(Refused) as refused:
        drawn(easel, prompt="a", temperature=-1.0)
    assert "temperature is -1.0" in refused.value.detail
    with pytest.raises(Refused):
        drawn(easel, prompt="")


def test_whoever_stops_frees_the_rows(easel):
    async def go():
        events = easel.draw("tiny", prompt="a", n=4, seed=1)
        await anext(events)
        await events.aclose()
        while easel.worker.busy:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(go(), 30))
    assert easel.bench("tiny").seats.free == 4


def test_an_edit_keeps_the_rows_above_the_line(easel):
    own, file = easel.bench("tiny"), io.BytesIO()
    first = drawn(easel, prompt="abc", n=1, seed=5)[-1].picture
    first.image.save(file, "PNG")
    sitter = easel.kept_rows("tiny", file.getvalue(), 2)
    assert (~sitter.draft.drawn).sum() == 2 * own.grid
    kept = own.pipeline.image.encode(sitter.draft.pixels[None].float() / 255)[0, : 2 * own.grid].tolist()
    for event in drawn(easel, sitter=sitter, prompt="b", n=2, seed=9):
        if isinstance(event, Made):
            assert list(event.picture.codes[: 2 * own.grid]) == kept


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_what_is_not_a_square_picture_is_refused_in_a_sentence(easel, content):
    file = io.BytesIO()
    Image.new("RGB", (16, 8)).save(file, "PNG")
    with pytest.raises(TesseraError, match="square" if content is None else "image cannot be used"):
        easel.kept_rows("tiny", file.getvalue() if content is None else content, 2)


def test_runs_come_get_better_and_go(tmp_path):
    worker = Worker({})
    catalogue = Catalogue(Places(tmp_path, ()), StudioConfig(device="cpu", max_batch=2), worker, Measures())
    catalogue.refresh()
    assert not worker.benches
    run_folder(tmp_path / "birds")
    catalogue.refresh()
    first = worker.benches["birds"]
    catalogue.refresh()
    assert worker.benches["birds"] is first, "nothing is read twice"
    run_folder(tmp_path / "birds", 2)
    catalogue.refresh()
    assert worker.benches["birds"] is first, "while it learns, not more often than once a minute"
    (tmp_path / "birds" / "report.html").write_text("")
    catalogue.refresh()
    assert worker.benches["birds"] is not first
    shutil.rmtree(tmp_path / "birds" / "step-000001")
    (tmp_path / "birds" / "step-000002" / "weights.safetensors").write_bytes(b"damaged")
    (tmp_path / "birds" / "latest").write_text("step-000003")
    catalogue.refresh()
    assert "birds" in worker.benches, "what is held stays where the newer one cannot be read"
    shutil.rmtree(tmp_path / "birds")
    catalogue.refresh()
    assert not worker.benches


def test_what_cannot_be_read_is_not_read_again_at_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(catalogue_module, "load", lambda name, *rest: calls.append(name) or damaged())
    catalogue = Catalogue(Places(tmp_path, ()), StudioConfig(device="cpu"), Worker({}), Measures())
    run_folder(tmp_path / "birds")
    for _ in range(3):
        catalogue.refresh()
    assert calls == ["birds"]
    run_folder(tmp_path / "birds", 2)
    catalogue.refresh()
    assert calls == ["birds", "birds"], "another checkpoint is"


def damaged():
    raise TesseraError("damaged")
