"""Nothing is deleted that this program did not name; what is written is written whole; one process at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tessera.errors import ConfigError
from tessera.files import own
from tessera.files.atomic import whole, write_whole
from tessera.files.claim import Lock, claim


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_with_anything_else_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / ".env").write_text("secret")
    with pytest.raises(ConfigError, match=r"is not empty and Tessera did not begin it: it holds \.env"):
        claim(tmp_path, "run")
    assert names(tmp_path) == [".env"]


def test_a_folder_that_was_begun_is_gone_on_with_but_not_as_another_kind(tmp_path):
    claim(tmp_path / "a", "run")
    claim(tmp_path / "a", "run")
    with pytest.raises(ConfigError, match="another kind"):
        claim(tmp_path / "a", "codes")


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


HOLD = """
import sys; from pathlib import Path; from tessera.files.claim import Lock
lock = Lock(Path(sys.argv[1])); lock.acquire(); print("held", flush=True); sys.stdin.read()
"""


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"in use by process {holder.pid} on"):
            Lock(tmp_path).acquire()
        holder.kill()
        holder.wait()
        lock = Lock(tmp_path)
        lock.acquire()
        assert json.loads((tmp_path / ".tessera-lock").read_text())["pid"] == os.getpid()
        lock.release()


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


def test_left_overs_in_a_plain_folder_of_ours_are_swept_too(tmp_path):
    claim(tmp_path, "run")
    (tmp_path / "samples").mkdir()
    for name in (own.temporary("a.png"), "a.png"):
        (tmp_path / "samples" / name).touch()
    own.sweep(tmp_path / "samples", locked=True)
    assert names(tmp_path / "samples") == ["a.png"]


def test_a_lock_is_held_on_a_full_disk_too(tmp_path, monkeypatch):
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    lock = Lock(tmp_path)
    monkeypatch.setattr(json, "dumps", full)
    lock.acquire()
    assert lock.held
    lock.release()
    assert not lock.held


def test_a_lock_in_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        Lock(tmp_path / "nowhere").acquire()
