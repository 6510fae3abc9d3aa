"""Where pictures are written: one folder for each prompt, and a sheet of all."""

import json
import os
import time

import pytest
from PIL import Image

from tessera.generate import sheet
from tessera.generate.pipeline import Picture
from tessera.generate.sheet import contact_sheet, folder_name, prompt_folder, wrap


def test_prompts_never_become_paths(tmp_path):
    for prompt in ("../../x", "/etc/passwd", "..", "a/b\\c", "\0", "", "é" * 300, "con\n"):
        name = folder_name(prompt, set())
        assert "/" not in name
        assert "\\" not in name
        assert name not in ("", ".", "..")
        assert len(name.encode()) <= 255
    first, second = prompt_folder(tmp_path, "a bird!"), prompt_folder(tmp_path, "a bird?")
    assert first != second
    assert prompt_folder(tmp_path, "a bird!") == first


@pytest.mark.parametrize("text", ["", "{", "[]", '{"prompt": 5}', '{"prompt": "another"}', "\ud800"])
def test_a_damaged_prompt_file_loses_no_picture(tmp_path, text):
    folder = prompt_folder(tmp_path, "a bird")
    Picture(Image.new("RGB", (4, 4)), "a bird", 0).save(folder / "0.png")
    (folder / "prompt.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    again = prompt_folder(tmp_path, "a bird")
    assert (again == folder) is (text != '{"prompt": "another"}')
    assert json.loads((again / "prompt.json").read_text())["prompt"] == "a bird"
    other = prompt_folder(tmp_path, "a bird?")
    assert other not in (folder, again)


def test_a_folder_or_file_of_the_users_is_not_taken_for_a_prompts(tmp_path):
    (tmp_path / "a_bird").mkdir()
    (tmp_path / "a_bird/notes.txt").write_text("mine")
    (tmp_path / "a_bird_2").write_text("mine")
    (tmp_path / "a_bird_3").symlink_to(tmp_path / "nowhere")
    assert prompt_folder(tmp_path, "a bird").name == "a_bird_4"
    assert os.listdir(tmp_path / "a_bird") == ["notes.txt"]


def test_a_prompt_of_a_million_letters_is_laid_out_at_once():
    picture = Picture(Image.new("RGB", (8, 8)), "word " * 200_000, 1)
    began = time.perf_counter()
    contact_sheet([picture])
    contact_sheet([Picture(Image.new("RGB", (8, 8)), "w" * 1_000_000, 1)])
    assert time.perf_counter() - began < 2


def test_lines_are_no_longer_than_the_tile():
    assert wrap("a bb ccc dddddddd e", 4, len, 9) == ["a bb", "ccc", "dddd", "dddd", "e"]
    assert wrap("a bb ccc dddddddd e", 4, len, 2) == ["a bb", "ccc"]
    assert wrap("", 4, len, 9) == []


def test_a_sheet_shows_some_of_very_many(monkeypatch, tmp_path):
    monkeypatch.setattr(sheet, "MOST", 3)
    pictures = [Picture(Image.new("RGB", (8, 8)), "x", i) for i in range(5)]
    assert contact_sheet(pictures).size == contact_sheet(pictures[:3]).size
