"""`docs/first-change.md` is true: its changes, put into a copy of the program, do what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from small_pages import ROOT

PAGE = "docs/first-change.md"
FILE = re.compile(r"`((?:src|tests)/[\w/]+\.py)`")
CHANGE = re.compile(r"[Rr]eplace\n\n```python\n(?P<old>.*?)```\n\nby\n\n```python\n(?P<new>.*?)```", re.S)


def changes() -> list[tuple[str, str, str]]:
    """(file, old, new) of each; a file is the last one that the page named before."""
    text = (ROOT / PAGE).read_text("utf-8")
    return [(FILE.findall(text[: found.start()])[-1], found["old"], found["new"]) for found in CHANGE.finditer(text)]


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program and its tests, changed as the page says."""
    folder = tmp_path_factory.mktemp("changed")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "golden", "found"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, old, new in changes():
        text = (folder / name).read_text("utf-8")
        assert text.count(old) == 1, f"{name} has this {text.count(old)} times:\n{old}"
        (folder / name).write_text(text.replace(old, new), "utf-8")
    return folder


def ran(folder: Path, *words: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_has_five_changes_in_three_files():
    assert len(changes()) == 5
    assert {name for name, _, _ in changes()} == {
        "src/tessera/config/order.py", "src/tessera/generate/orders.py", "tests/generate/test_any_order.py",
    }  # fmt: skip


@pytest.mark.slow
def test_its_own_test_passes_where_it_was_followed(changed):
    words = re.search(r"^\.venv/bin/pytest (.+)$", (ROOT / PAGE).read_text("utf-8"), re.M)
    assert words
    told = ran(changed, "-m", "pytest", *words[1].split(), "-n", "0", "-p", "no:cacheprovider")
    assert re.search(r"^\d+ passed, \d+ deselected", told, re.M), told


def test_the_command_line_takes_the_new_order_and_its_help_tells_of_it(changed):
    told = re.sub(r"[\s│]+", " ", ran(changed, "-m", "tessera", "generate", "--help"))
    assert "halton,spiral" in told.replace(", ", ",")
    assert "the middle" in told


def test_what_is_left_is_formatted_as_the_house_wants_it(changed):
    files = sorted({name for name, _, _ in changes()})
    ran(changed, "-m", "ruff", "format", "--check", *files)
    ran(changed, "-m", "ruff", "check", *files)
