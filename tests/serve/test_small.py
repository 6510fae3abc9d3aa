"""The small parts of a server: masks, keys, hosts, pictures that are kept for a while, settings."""

from __future__ import annotations

import configparser
import io
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from conftest import fails
from tessera.cli.arguments import options
from tessera.cli.serve import ServeRunsConfig
from tessera.config import EditingConfig, Limits, ServingConfig
from tessera.errors import ConfigError
from tessera.generate.masks import cells
from tessera.generate.picture import Picture
from tessera.serve.errors import Refused
from tessera.serve.kept import Kept
from tessera.serve.keys import Keys, Loopback, doorman
from tessera.serve.pictures import Encoding, drafted, side_of


def slow_cells(alpha: torch.Tensor, grid: int) -> list[list[bool]]:
    """Pixel by pixel: the codes of which anything is transparent."""
    height, width = alpha.shape
    drawn = [[False] * grid for _ in range(grid)]
    for i in range(grid):
        for j in range(grid):
            for y in range(height):
                for x in range(width):
                    inside = y < (i + 1) * height / grid and y + 1 > i * height / grid
                    inside &= x < (j + 1) * width / grid and x + 1 > j * width / grid
                    drawn[i][j] |= inside and bool(alpha[y, x] < 128)
    return drawn


def test_the_codes_that_a_mask_draws_are_those_found_pixel_by_pixel():
    chance, seen = torch.Generator().manual_seed(0), set()
    for case in range(60):
        size = int(torch.randint(3, 14, (1,), generator=chance))
        alpha = torch.full((size, size), 255, dtype=torch.uint8)
        alpha[int(torch.randint(0, size + 1, (1,), generator=chance)) :] = case % 3
        if case % 4 == 0:
            alpha[:, : size // 2] = 255
        found = cells(alpha < 128, 4)
        assert found.tolist() == slow_cells(alpha, 4)
        seen.add(int(found.sum()))
    assert {0, 4, 8, 12, 16} <= seen


def test_a_pictures_own_transparency_is_its_mask():
    own = Image.new("RGBA", (8, 8), (9, 9, 9, 255))
    own.paste((0, 0, 0, 0), (0, 4, 8, 8))
    own.save(file := io.BytesIO(), "PNG")
    kept = drafted(file.getvalue(), None, EditingConfig(), 16, 3, 4, 1000)
    assert kept.drawn.view(4, 4).tolist() == [[False] * 4] * 2 + [[True] * 4] * 2
    assert kept.pixels.shape == (3, 16, 16)
    assert kept.pixels[:, 0, 0].tolist() == [9, 9, 9]


@pytest.mark.parametrize("size", ["0x0", "16x32", "17x17", "99999x99999", "2048x2048", "x", "16 x 16"])
def test_sizes_that_are_not_a_multiple_are_refused_by_name(size):
    with pytest.raises(ConfigError, match=r"this model draws 16x16, 32x32, 48x48, 64x64, \.\.\. 1024x1024"):
        side_of(size, 16, 1024)
    assert side_of("auto", 16, 1024) == side_of(None, 16, 1024) == 16
    assert side_of("2048x2048", 2048, 1024) == 2048


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_pictures_of_every_kind_are_written_in_every_format(mode, format):
    picture = Picture(Image.new(mode, (8, 8)), "a \x00 bird ☃", 2**63 - 1, "run")
    found = Image.open(io.BytesIO(Encoding(16, format, 0)(picture)))
    assert found.size == (16, 16)
    if format == "png":
        assert found.text["prompt"].startswith("a")
        assert found.text["seed"] == str(2**63 - 1)
    if format == "jpeg" and mode in ("LA", "RGBA"):
        assert min(found.getpixel((0, 0))) > 250, "transparency becomes white"


def test_kept_pictures_are_forgotten_when_their_time_or_room_is_over():
    now = [0.0]
    kept = Kept(10, 100, lambda: now[0])
    names = [kept.put(bytes(40), "png") for _ in range(3)]
    assert kept.get(names[0]) is None, "the oldest made room"
    assert kept.get(names[2]) == ("png", bytes(40))
    now[0] = 10.5
    assert kept.get(names[2]) is None
    assert (kept.size, len(kept.files)) == (0, 0)
    assert kept.get(kept.put(bytes(101), "png")) is None, "what is larger than all the room"
    assert len(set(names)) == 3
    assert min(map(len, names)) > 30


@pytest.mark.parametrize(
    ("headers", "good"),
    [
        ({"host": "127.0.0.1:8000"}, True),
        ({"host": "localhost"}, True),
        ({"host": "[::1]:8000"}, True),
        ({"host": "localhost:8000", "origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}, True),
        ({"host": "evil.example:8000"}, False),
        ({"host": "127.0.0.1.evil.example"}, False),
        ({"host": ""}, False),
        ({"host": "["}, False),
        ({}, False),
        ({"host": "localhost", "origin": "http://evil.example"}, False),
        ({"host": "localhost", "origin": "null"}, False),
        ({"host": "localhost", "sec-fetch-site": "cross-site"}, False),
    ],
)
def test_without_keys_no_other_site_may_ask(headers, good):
    """DNS rebinding shows in Host, forged requests in Origin."""
    if good:
        assert Loopback().name(headers, "127.0.0.1") == "127.0.0.1"
    else:
        with pytest.raises(Refused) as refused:
            Loopback().name(headers, "127.0.0.1")
        assert refused.value.status_code == 403


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic abcdefgh12345678", "Bearer abcdefgh1234567", "Bearer x\udcff"]
)
def test_whoever_has_no_key_is_not_let_in(header):
    keys = Keys(["abcdefgh12345678", "x" * 20])
    with pytest.raises(Refused) as refused:
        keys.name({"authorization": header} if header else {}, "1.2.3.4")
    assert refused.value.status_code == 401
    assert "abcdefgh" not in str(refused.value)
    first, second = (keys.name({"authorization": f"bearer {key}"}, "") for key in ("abcdefgh12345678", "x" * 20))
    assert first != second
    assert "abcd" not in first


def test_every_key_is_compared_and_in_constant_time(monkeypatch):
    import hmac

    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(len(a)) or a == b)
    Keys(["a" * 16, "b" * 16, "c" * 16]).name({"authorization": f"Bearer {'a' * 16}"}, "")
    assert compared == [32, 32, 32]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        (b"# nothing\n\n", "holds no key"),
        (b"short\n", "Key 1 in .* fewer than 16"),
        (b"\xff", "UTF-8"),
    ],
)
def test_a_key_file_that_is_no_good_is_refused(tmp_path, content, says):
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        doorman(str(path))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "usage: tessera serve"),
        (["RUN", "--host", "0.0.0.0"], "no API keys are set"),
        (["RUN", "--port", "70000"], "port is 70000"),
        (["RUN", "--max-batch", "1"], "max-batch is 1"),
        (["RUN", "--max-queue", "3"], "max-queue is 3"),
        (["RUN", "--public-url", "ftp://x"], "public-url is 'ftp://x'"),
        (["RUN"], "There is no run folder RUN"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_loaded(capsys, args, says):
    assert says in " ".join(fails(capsys, "serve", *args).split())


def test_the_help_teaches(capsys):
    from tessera.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for word in (
        "curl",
        "/v1/images/generations",
        "--api-key-file",
        "--max-queue",
        "--max-batch",
        "--weights",
        "SIGTERM",
        "/metrics",
    ):
        assert word in shown


def test_without_the_extra_the_error_names_the_line_that_installs_it(capsys, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("tessera.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'tessera-t2i[serve]'" in fails(capsys, "serve", "RUN")


def test_the_options_of_http_are_those_of_the_command_line_and_python():
    from dataclasses import fields

    from tessera.config import Request, SampleConfig
    from tessera.serve.schema import Edit, Generation

    own = (
        {f.name for f in fields(SampleConfig)} - {"ahead"},
        {f.name for f in fields(Request)} & {"prompt", "seed", "truncate"},
    )
    for model in (Edit, Generation):
        assert set().union(*own) <= set(model.model_fields)


def test_limits_have_usable_defaults():
    ServingConfig().check()
    Limits().check()
    assert ServingConfig().host == "127.0.0.1"


EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_systemd_unit_is_one_and_its_command_is_ours():
    unit = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes="#")
    unit.optionxform = str  # type: ignore[method-assign, assignment]
    unit.read(EXAMPLES / "tessera.service")
    assert set(unit.sections()) == {"Unit", "Service", "Install"}
    program, command, *args = unit["Service"]["ExecStart"].split()
    assert (Path(program).name, command) == ("tessera", "serve")
    options(ServeRunsConfig, args, "serve")
    assert float(unit["Service"]["TimeoutStopSec"]) > Limits.drain_seconds


def test_the_containerfile_copies_what_is_there_and_its_command_is_ours():
    text = (EXAMPLES / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    known = {
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "ENV",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    }
    assert {word for word, _ in lines} <= known
    assert lines[0][0] == "FROM"
    said = dict(lines)
    for word, rest in lines:
        if word == "COPY":
            assert all((EXAMPLES.parent / source).exists() for source in rest.split()[:-1]), rest
    assert json.loads(said["ENTRYPOINT"]) == ["tessera", "serve"]
    options(ServeRunsConfig, json.loads(said["CMD"]), "serve")
    assert said["USER"] != "root"


def test_every_flag_that_the_page_names_is_there(capsys):
    from tessera.cli import main

    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = capsys.readouterr().out
    page = (EXAMPLES.parent / "docs" / "serving.md").read_text()
    flags = set(re.findall(r"--[a-z][a-z-]+", page))
    assert {"--api-key-file", "--drain-seconds"} <= flags
    assert all(flag in shown for flag in flags)
