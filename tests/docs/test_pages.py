"""Every command in the documents has options that there are; those of the guides do what they say; links lead somewhere;
the site is built strictly and loads nothing from elsewhere."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from small_pages import BLOCK, PAGES, ROOT, Command, all_commands, blocks, commands
from tessera import cli
from tessera.cli import arguments, main
from tessera.config.presets import PRESETS
from tessera.errors import ConfigError
from tessera.journeys import birds

COMMANDS = [c for c in all_commands() if "--order spiral" not in c.line]  # what first-change.md adds has its own test
PARSERS = ("data", "edit", "evaluate", "exchange", "generate", "hub", "serve", "train")
"""Modules of the command line that turn words into settings."""


class Parsed(Exception):
    """The words were understood; the work is not done."""


def test_pages_have_commands_and_every_verb_is_shown():
    shown = {c.words[1] for c in COMMANDS}
    assert shown >= {"learn", "train", "generate", "edit", "evaluate", "compare", "serve", "studio", "import", "export",
                     "push", "pull", "show", "data", "demo"}  # fmt: skip
    assert shown <= cli.COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_understood(command: Command, monkeypatch, capsys):
    """By the parser itself; of what it names nothing is there, so that it ends before any work."""

    def understood(*args: object, **more: object) -> None:
        arguments.options(*args, **more)  # type: ignore[arg-type]
        raise Parsed

    for name in PARSERS:
        module = importlib.import_module(f"tessera.cli.{name}")
        if hasattr(module, "options"):
            monkeypatch.setattr(module, "options", understood)
    words = ["runs/birds" if w == "alice/birds" and command.words[1] == "generate" else w for w in command.words[1:]]
    if words[0] == "train":  # of a run, which is trained further, the options are those of its preset
        preset = words[1] if words[1] in PRESETS else "t2i-s-64"
        main(["train", preset, *words[2:], "--tokens.image", "runs/vae", "--dry-run"])
        assert "optim" in capsys.readouterr().out
    else:
        with pytest.raises(Parsed):
            main(words)


def test_a_wrong_option_would_be_found(monkeypatch):
    wrong = Command("a page", "tessera generate runs/a 'a bird' --guidence 3")
    with pytest.raises(SystemExit):
        main(wrong.words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_programs_are_python_and_what_they_import_is_there(page: Path):
    for code in blocks(page, "python"):
        if "..." in code or code.lstrip().startswith("#") or page.name == "first-change.md":
            continue  # the sketch of a change; that page has a test of its own
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tessera"):
                module = importlib.import_module(node.module)
                for name in node.names:
                    with suppress(ConfigError):  # it is there, and wants a file that is not
                        assert hasattr(module, name.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_to_files_that_there_are(page: Path):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)|<img src=\"([^\"]+)\"", BLOCK.sub("", page.read_text("utf-8")))
    own = "https://github.com/tessera-t2i/tessera/blob/main/"
    for link in (a or b for a, b in links):
        if link.startswith(own):
            assert (ROOT / link.removeprefix(own)).exists(), link
        elif "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_site_is_built_strictly_with_the_public_names(site: Path):
    page = (site / "reference/python/index.html").read_text("utf-8")
    for name in ("tessera.load", "tessera.generate.pipeline.Pipeline.events", "tessera.errors.ConfigError"):
        assert f'id="{name}"' in page
    assert len(list(site.rglob("index.html"))) >= 20


def test_the_site_loads_nothing_from_elsewhere(site: Path):
    loads = re.compile(r"<(?:script|img|iframe|source)[^>]+src=\"(?:https?:)?//|<link[^>]+rel=\"(?:stylesheet|preconnect)\""
                       r"[^>]+href=\"(?:https?:)?//|url\(\s*[\"']?(?:https?:)?//|@import")  # fmt: skip
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert not (found := loads.search(file.read_text("utf-8"))), (file.name, found[0])


# The guides, run in order on what is tiny.

GUIDES = ("getting-started", "guides/own-pictures", "guides/one-at-a-time", "editing")
BUDGETS = {"4m": "12s", "30m": "12s", "2h": "16s"}
"""What a budget of a guide becomes."""
TINY = {
    "learn": ["--pixels", "16"],
    "t2i-s-64": ["--steps", "3", "--optim.batch", "2", "--model.transformer.dim", "32", "--model.transformer.depth", "1",
                 "--model.transformer.heads", "2", "--model.transformer.head-dim", "16"],
    "pyramid-xs-64": ["--steps", "3", "--optim.batch", "2", "--model.perceptual", "none"],
    "dvae-s-64": ["--steps", "3", "--optim.batch", "2"],
    "clip-s-64": ["--steps", "3", "--optim.batch", "2"],
    "evaluate": ["--features", "none"],
}  # fmt: skip
"""What is added to a command of this kind, so that it ends soon."""


def tiny(words: list[str]) -> list[str]:
    kind = words[1] if words[0] == "train" else words[0]
    small = [BUDGETS.get(word, word) for word in words]
    for name, count in (("--count", "6"), ("--best-of", "8")):
        if name in small:
            small[small.index(name) + 1] = count
    return small + TINY.get(kind, [])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The prompt is too long")  # what a model of three steps adds to a caption is long
@pytest.mark.parametrize("guide", GUIDES)
def test_the_commands_of_a_guide_run_in_order(guide: str, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("PICTURES", "birds"):
        birds.draw_folder(Path(name), 60, pixels=32, seed=1)
    Image.new("RGB", (32, 32), "red").save("bird.png")
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (8, 8, 24, 24))
    mask.save("mask.png")
    done = [c.words[1:] for c in commands(ROOT / "docs" / f"{guide}.md")]
    assert len(done) >= 3
    for words in done:
        main(tiny(words))
        capsys.readouterr()
