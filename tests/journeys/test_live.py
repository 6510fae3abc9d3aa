"""What a cell of a notebook shows while a model trains and draws, in a real kernel; and that nothing is shown elsewhere."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from small_runs import dvae_config
from tessera.errors import ConfigError
from tessera.generate.live import PictureStream, Sheet
from tessera.generate.picture import Picture
from tessera.journeys import live, training
from tessera.machine import notebook

CELLS = [
    "import dataclasses, conftest, small_runs, small_server\nimport tessera\nfrom pathlib import Path",
    "config = dataclasses.replace(small_runs.dvae_config(Path({folder!r}), Path({out!r})), log_every=1)\n"
    "import tessera.journeys.live as live\nlive.Curves.__init__.__defaults__ = (0.0,)\nlive.SHARE = 1e9\n"
    "run = tessera.train(config)",
    "model = small_server.pipeline()\nmodel.stream('1 2', count=3, seed=7, guidance=2.0, batch=2)",
    "print([p.seed for p in _.pictures], _.pictures == model('1 2', count=3, seed=7, guidance=2.0))",
    "for picture in model.stream('1 2', count=2, seed=7): print(picture.seed)",
    "tessera.train(dataclasses.replace(config, steps=7), plot='off')",
]


@pytest.mark.filterwarnings("ignore")
def test_a_cell_shows_the_curves_and_the_pictures_while_they_grow(bird_folder, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from nbformat.v4 import new_code_cell, new_notebook

    class Counting(nbclient.NotebookClient):
        """Keeps every picture that a cell was told to show."""

        def process_message(self, message, cell, cell_index):
            data = message.get("content", {}).get("data", {})
            if message["msg_type"] in ("display_data", "update_display_data") and "image/png" in data:
                told[cell_index].append((message["msg_type"], data["image/png"]))
            return super().process_message(message, cell, cell_index)

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    words = {"folder": str(bird_folder), "out": str(tmp_path / "run")}
    book = new_notebook(cells=[new_code_cell(c.format(**words) if "config =" in c else c) for c in CELLS])
    told: list[list[tuple[str, str]]] = [[] for _ in CELLS]
    Counting(book, timeout=200, kernel_name="python3").execute()

    kinds = [[kind for kind, _ in cell] for cell in told]
    assert kinds[1][0] == "display_data"
    assert kinds[1].count("update_display_data") >= 6, "one for each step"
    assert len({content for _, content in told[1]}) >= 6, "the curves move"
    assert kinds[2] == ["display_data", *["update_display_data"] * 4], "an unfinished sheet and pictures, twice"
    assert kinds[4] == ["display_data", *["update_display_data"] * 2]
    assert kinds[5] == []
    for cell in (1, 2, 4):
        (shown,) = [o for o in book.cells[cell].outputs if "image/png" in o.get("data", {})]
        assert shown.data["image/png"].strip() == told[cell][-1][1].strip(), "what stays is the last of them"
    assert text(book.cells[3]) == "[7, 8, 9] True\n"
    assert text(book.cells[4]) == "7\n8\n"
    first, last = (Image.open(io.BytesIO(base64.b64decode(told[2][i][1]))) for i in (0, -1))
    assert (200, 200, 200) in colours(first), "not drawn yet"
    assert (200, 200, 200) not in colours(last)


def text(cell) -> str:
    return "".join(o.get("text", "") for o in cell.outputs)


def colours(image: Image.Image) -> set:
    return {colour for _, colour in image.convert("RGB").getcolors(1_000_000)}


def test_outside_a_notebook_nothing_is_shown_and_asking_for_it_names_the_install_line(bird_folder, tmp_path):
    assert not notebook.in_notebook()
    assert not notebook.shows("auto", "plot")
    config = dvae_config(bird_folder, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"plot is on, .* pip install 'tessera-t2i\[notebook\]'"):
        training.train(config, plot="on")
    with pytest.raises(ConfigError, match="plot"):
        training.train(config, plot="yes")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists(), "before anything is read"


class Shown:
    """A cell that keeps what it is shown."""

    def __init__(self):
        self.pictures = []

    def show(self, picture):
        self.pictures.append(picture)


def test_the_sheet_keeps_one_place_for_each_seed(monkeypatch):
    monkeypatch.setattr("tessera.generate.live.Cell", Shown)
    sheet = Sheet(3)
    for seed, colour in ((1, "grey"), (2, "grey"), (1, "red")):
        sheet.show([Picture(Image.new("RGB", (8, 8), colour), "a bird", seed)])
    one, two, three = sheet.cell.pictures
    assert one.size == two.size == three.size
    assert (255, 0, 0) in colours(three)
    assert (128, 128, 128) in colours(three)
    assert (128, 128, 128) in colours(one)


def test_the_curves_take_a_small_share_of_the_time(monkeypatch, tmp_path):
    clock = iter([0.0, 0.0, 2.0, 3.0, 41.9, 42.0, 42.0, 42.1])
    monkeypatch.setattr(live, "Cell", Shown)
    monkeypatch.setattr(live.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(live, "plot", lambda title, rows: title)
    curves = live.Curves(type("Run", (), {"folder": tmp_path, "read_metrics": lambda self: []})())
    for drawn in (1, 1, 1, 2):  # at 0, which takes two seconds; not at 3 and 41.9; at 42
        curves.log({})
        assert len(curves.cell.pictures) == drawn


def test_a_stream_takes_words_or_a_request():
    from small_server import pipeline
    from tessera.config import Request, SampleConfig

    model = pipeline()
    said, asked = [], Request("1 2", count=2, seed=3, sampling=SampleConfig(guidance=2.0))
    stream = model.stream("1 2", lambda done, total: said.append((done, total)), count=2, seed=3, guidance=2.0)
    assert isinstance(stream, PictureStream)
    wanted = [p.codes for p in model("1 2", count=2, seed=3, guidance=2.0)]
    assert [p.codes for p in stream] == [p.codes for p in model.stream(asked)] == wanted
    assert [p.codes for p in stream.pictures] == wanted
    assert said[-1] == (32, 32)
    assert [p.codes for p in model.stream(asked, count=1)] == wanted[:1]
    with pytest.raises(ConfigError, match="no option 'gidance'; did you mean 'guidance'"):
        model.stream("1 2", gidance=2)
