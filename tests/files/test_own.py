"""Nothing is deleted that this program did not name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tessera.files import own
from tessera.files.claim import claim


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_only_our_names_in_our_folders_are_removed(tmp_path):
    claim(tmp_path / "ours", "run")
    (tmp_path / "theirs").mkdir()
    for folder, name in (("theirs", "step-000001"), ("ours", "thesis.tex"), ("ours", ".git")):
        path = tmp_path / folder / name
        path.mkdir()
        with pytest.raises(AssertionError, match="not ours"):
            own.remove(path)
        assert path.is_dir()
    (tmp_path / "ours" / "step-000001").mkdir()
    own.remove(tmp_path / "ours" / "step-000001")
    assert not (tmp_path / "ours" / "step-000001").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_the_marker_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / own.MARKER)
    assert own.kind_of(tmp_path) == ""


def test_a_link_is_removed_and_what_it_points_to_is_not(tmp_path):
    claim(tmp_path / "ours", "run")
    (tmp_path / "precious").mkdir()
    (tmp_path / "ours" / "step-000001").symlink_to(tmp_path / "precious")
    own.remove(tmp_path / "ours" / "step-000001")
    assert (tmp_path / "precious").is_dir()


def test_only_left_overs_of_processes_that_are_gone_are_swept(tmp_path):
    claim(tmp_path, "run")
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    kept = [".bashrc", ".config.json.12", own.MARKER, f".tessera-{own.HOST}-{os.getppid()}-x"]
    for name in [f".tessera-{own.HOST}-{gone.stdout.strip()}-config.json", *kept]:
        (tmp_path / name).touch()
    (tmp_path / own.MARKER).write_text('{"kind": "run"}')
    own.sweep(tmp_path)
    assert names(tmp_path) == sorted(kept)


def test_left_overs_in_a_plain_folder_of_ours_are_swept_too(tmp_path):
    claim(tmp_path, "run")
    (tmp_path / "samples").mkdir()
    for name in (own.temporary("a.png"), "a.png"):
        (tmp_path / "samples" / name).touch()
    own.sweep(tmp_path / "samples", locked=True)
    assert names(tmp_path / "samples") == ["a.png"]
