"""Nothing outside of the named folders is listed, read or written."""

from __future__ import annotations

import os

import pytest

from tessera.errors import ConfigError
from tessera.studio.places import Places


@pytest.fixture
def there(tmp_path):
    for name in ("pictures/birds/red", "pictures/.hidden", "secret/deep", "runs/old"):
        (tmp_path / name).mkdir(parents=True)
    os.symlink(tmp_path / "secret", tmp_path / "pictures" / "out")
    os.symlink(tmp_path / "pictures" / "birds", tmp_path / "pictures" / "again")
    os.symlink(tmp_path / "pictures" / "loop", tmp_path / "pictures" / "loop")
    os.symlink(tmp_path / "secret", tmp_path / "runs" / "linked")
    (tmp_path / "pictures" / "file").write_text("x")
    return tmp_path, Places.of(str(tmp_path / "runs"), [str(tmp_path / "pictures")])


@pytest.mark.parametrize(
    "asked",
    ["..", "../secret", "birds/../../secret", "out", "out/deep", "/", "/etc", "file", "absent", "loop", "a\0b", "x" * 5000, "hf:a/b", "https://a.example/x"],
)  # fmt: skip
def test_only_folders_below_the_roots_can_be_chosen(there, asked):
    folder, places = there
    with pytest.raises(ConfigError, match="does not lie below"):
        places.pictures(asked)
    with pytest.raises(ConfigError, match="does not lie below"):
        places.pictures(folder / "pictures" / asked)


def test_links_inside_are_followed_and_those_that_lead_out_are_not_shown(there):
    folder, places = there
    assert places.pictures(folder / "pictures" / "again") == folder / "pictures" / "birds"
    assert [found.name for found in places.folders(folder / "pictures")] == ["again", "birds"]
    assert places.parent(folder / "pictures" / "birds") == folder / "pictures"
    assert places.short(folder / "pictures" / "birds") == "birds"
    assert places.pictures("birds") == folder / "pictures" / "birds"
    assert places.parent(folder / "pictures") is None
    assert not places.readable(folder / "pictures" / "out" / "deep")


@pytest.mark.parametrize(
    "name", ["", "..", ".", "a/b", "../secret", "/etc", ".hidden", "-flag", "studio", "linked", "a\0", "a b", "x" * 81]
)
def test_the_name_of_a_run_is_a_plain_name(there, name):
    with pytest.raises(ConfigError):
        there[1].run(name)


def test_a_plain_name_is_a_folder_of_the_runs(there):
    assert there[1].run("new-2.b_c") == there[0] / "runs" / "new-2.b_c"


def test_a_root_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="--pictures absent is not a folder"):
        Places.of(str(tmp_path), ["absent"])
