"""Pictures stay, and say their own prompt and seed."""

from __future__ import annotations

import pytest
from PIL import Image

from tessera.errors import DataError
from tessera.generate.picture import Picture
from tessera.studio.gallery import Gallery

WORDS = "<script>alert(1)</script> 'a' \"b\" ü"


def drawn(seed: int) -> Picture:
    return Picture(Image.new("RGB", (8, 8), "red"), WORDS, seed, "birds")


def test_what_is_kept_is_there_after_a_restart(tmp_path):
    kept = [Gallery(tmp_path / "studio" / "gallery").keep(drawn(seed)) for seed in (7, 2**53)]
    found = Gallery(tmp_path / "studio" / "gallery").newest(10)
    assert sorted(found, key=lambda k: k.seed) == kept
    assert {k.prompt for k in found} == {WORDS}
    with Image.open(tmp_path / "studio" / "gallery" / kept[0].name) as image:
        assert image.text["seed"] == "7"  # type: ignore[attr-defined]


def test_only_its_own_files_are_given(tmp_path):
    gallery = Gallery(tmp_path / "studio" / "gallery")
    kept = gallery.keep(drawn(1))
    (gallery.folder / "notes.png").write_bytes(b"x")
    (gallery.folder / "drawn-20260101-000000-000000-0000.png").write_bytes(b"not a picture")
    (gallery.folder / "drawn-20260101-000000-000000-0001.png").symlink_to(tmp_path / "secret")
    assert gallery.newest(10) == [kept]
    for name in ("notes.png", "../../secret", "drawn-20260101-000000-000000-0001.png", "", "/etc/passwd"):
        with pytest.raises(DataError):
            gallery.content(name)
    assert gallery.content(kept.name).startswith(b"\x89PNG")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "studio").mkdir()
    (tmp_path / "studio" / "mine").write_text("x")
    with pytest.raises(Exception, match="did not begin it"):
        Gallery(tmp_path / "studio" / "gallery").keep(drawn(1))


def test_nothing_is_there_at_first(tmp_path):
    assert Gallery(tmp_path / "absent" / "gallery").newest(3) == []
