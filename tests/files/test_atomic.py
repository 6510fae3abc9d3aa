"""What is written is written whole."""

from pathlib import Path

import pytest

from tessera.files.atomic import whole, write_whole


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_an_error_in_the_middle_leaves_the_file_before_and_nothing_beside_it(tmp_path):
    write_whole(tmp_path / "a.json", "1")

    def fail() -> None:
        with whole(tmp_path / "a.json") as fresh:
            fresh.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "1"


def test_a_file_that_is_replaced_is_never_seen_half_written(tmp_path, monkeypatch):
    write_whole(tmp_path / "a.json", "old")
    write = Path.write_bytes

    def half(path: Path, content: bytes) -> None:
        write(path, content[: len(content) // 2])
        assert (tmp_path / "a.json").read_text() == "old", "a reader in this moment"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old"
    assert names(tmp_path) == ["a.json"]
