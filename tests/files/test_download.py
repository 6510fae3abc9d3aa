"""What is fetched by a command: its programs are started with their arguments, and no shell sees them."""

from __future__ import annotations

import os
import sys

import pytest

from tessera.data.find import find
from tessera.errors import CheckpointError, ConfigError, DataError
from tessera.files.download import output, programs_of


def test_a_command_is_programs_with_their_arguments():
    assert programs_of("pipe: curl -s 'https://x/?a=1&b={}|2' | zcat") == [
        ["curl", "-s", "https://x/?a=1&b={}|2"],
        ["zcat"],
    ]
    assert programs_of(r'pipe:cat "a b".tar c\ d.tar') == [["cat", "a b.tar", "c d.tar"]]
    assert programs_of("pipe:cat ~/x '~/x'")[0][1] == os.path.expanduser("~/x")


@pytest.mark.parametrize(
    "command",
    ["cat a; cat b", "cat a > b", "cat $HOME/a", "cat `a`", 'cat "$(a)"', "cat a & cat b", "cat a\ncat b", "cat 'a",
     "", "| cat", "cat a |", "cat a || cat b", "(cat a)", "cat a\\"],
)  # fmt: skip
def test_what_needs_a_shell_is_refused(command):
    with pytest.raises(ConfigError, match="cannot be run without a shell"):
        programs_of(f"pipe:{command}")


def test_programs_feed_each_other_and_their_failures_are_told(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 1_000_000)
    assert output(f"pipe:cat {tmp_path}/a | head -c 5 | cat", tmp_path / "cache").read_bytes() == b"xxxxx"
    for command, says in (
        (f"cat {tmp_path}/none | cat", f"'cat {tmp_path}/none' failed with status 1: .*none"),
        (f"cat {tmp_path}/a | false", "'false' failed with status 1"),
        (f"cat {tmp_path}/a | no-such-program-here", "'no-such-program-here' cannot be started"),
    ):
        with pytest.raises(CheckpointError, match=says):
            output(f"pipe:{command}", tmp_path / "cache")
    assert len([p for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"]) == 1


@pytest.mark.parametrize("address", ["s3://b/x.tar", "gs://b/$(touch ran).tar", "hdfs://b/x.tar", "file://{}/x.tar"])
def test_an_address_starts_no_program(address, tmp_path, monkeypatch):
    """Where the package for a store is not installed, or nothing reads the scheme, a sentence says what to do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("subprocess.Popen", None)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises((ConfigError, DataError), match=r"pip install 'tessera-t2i\[(s3|gs)\]'|pipe:hdfs dfs -cat"):
        find(address.format(tmp_path))
    assert not (tmp_path / "ran").exists()
