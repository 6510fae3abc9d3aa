"""A folder is taken for one kind of content, and by one process at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tessera.errors import ConfigError
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
