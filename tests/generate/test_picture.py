"""A picture with its prompt and seed: shown in a notebook, and written whole."""

from pathlib import Path

import pytest
from PIL import Image

from tessera.generate.pipeline import Picture
from tessera.generate.sheet import contact_sheet


def test_a_picture_shows_itself():
    picture = Picture(Image.new("RGB", (8, 8)), "x", 1)
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert contact_sheet([picture] * 3).width > 128


def test_pictures_are_written_whole(tmp_path, monkeypatch):
    path = tmp_path / "0.png"
    Picture(Image.new("RGB", (4, 4)), "x", 0).save(path)
    before = path.read_bytes()
    monkeypatch.setattr(
        Image.Image, "save", lambda self, file, *args, **options: Path(file).write_bytes(b"h") and 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        Picture(Image.new("RGB", (4, 4)), "x", 0).save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["0.png"]
    assert path.read_bytes() == before
