"""Nothing that was read is ever run: descriptions of shards, commands in settings, what commands are made of."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp

from tessera.cli import main
from tessera.config import DataConfig, TrainConfig, to_dict
from tessera.data.codes import Codes
from tessera.data.find import find
from tessera.data.pictures import read
from tessera.errors import CheckpointError, ConfigError, DataError
from tessera.files.download import output, programs_of
from tessera.train import sharded
from tessera.train.sharded import read_optimizer


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


# Optimiser state that ranks wrote together.

MOMENTS = {"a.weight|exp_avg": torch.arange(6.0).view(2, 3), "a.weight|step": torch.tensor(3.0),
           "b|exp_avg": torch.ones(3, dtype=torch.bfloat16)}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("tessera.data.shards.CACHE", tmp_path / "cache")


@pytest.fixture
def shards(tmp_path):
    with pytest.warns(UserWarning, match="single process"):
        dcp.save(dict(MOMENTS), checkpoint_id=tmp_path / "optimizer", no_dist=True)
    return tmp_path / "optimizer"


def test_shards_are_read_whole_with_their_types(shards):
    found = read_optimizer(shards)["moments"]
    assert found.keys() == {"a.weight", "b"}
    for name, value in MOMENTS.items():
        parameter, _, kind = name.rpartition("|")
        assert found[parameter][kind].dtype == value.dtype
        assert torch.equal(found[parameter][kind], value)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_description_of_shards_that_would_run_something_is_refused(shards, tmp_path, protocol):
    honest = dcp.FileSystemReader(shards).read_metadata()
    for bomb in (Bomb(tmp_path / "it ran"), [honest, Bomb(tmp_path / "it ran")]):
        (shards / ".metadata").write_bytes(pickle.dumps(bomb, protocol=protocol))
        with pytest.raises(CheckpointError, match=r"optimizer holds .*wants to run .*Nothing in it was run"):
            read_optimizer(shards)
    assert not (tmp_path / "it ran").exists()


def test_a_shard_that_would_run_something_is_refused(shards, tmp_path):
    (file,) = shards.glob("*.distcp")
    honest = dcp.FileSystemReader(shards).read_metadata()
    torch.save(Bomb(tmp_path / "it ran"), file)
    for info in honest.storage_data.values():
        info.offset, info.length = 0, file.stat().st_size
    (shards / ".metadata").write_bytes(pickle.dumps(honest))
    with pytest.raises(CheckpointError, match="optimizer holds"):
        read_optimizer(shards)
    assert not (tmp_path / "it ran").exists()


def changed(about, how: str) -> None:
    first = next(iter(about.storage_data.values()))
    tensor = about.state_dict_metadata["a.weight|exp_avg"]
    if how == "leads out":
        first.relative_path = "../elsewhere.distcp"
    elif how == "longer":
        first.length = 10**12
    elif how == "huge":
        tensor.size = torch.Size([2**40, 2**20])
        tensor.chunks[0].sizes = tensor.size
    elif how == "gone":
        about.storage_data.clear()
    elif how == "bytes":
        about.state_dict_metadata["x|y"] = dcp.metadata.BytesStorageMetadata()


@pytest.mark.parametrize("how", ["leads out", "longer", "huge", "gone", "bytes"])
def test_a_description_of_shards_that_lies_gets_a_sentence(shards, how):
    about = dcp.FileSystemReader(shards).read_metadata()
    changed(about, how)
    (shards / ".metadata").write_bytes(pickle.dumps(about))
    with pytest.raises(CheckpointError, match="holds no readable optimiser state"):
        sharded.gathered(shards)


@pytest.mark.parametrize("content", [b"", b"words", b"\x80\x04N.", b"\x80\x02]."])
def test_a_damaged_description_of_shards_gets_a_sentence(shards, content):
    (shards / ".metadata").write_bytes(content)
    with pytest.raises(CheckpointError, match="holds no readable optimiser state"):
        sharded.gathered(shards)


# Commands.


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
    with pytest.raises((ConfigError, DataError), match=r"pip install 'tessera\[(s3|gs)\]'|pipe:hdfs dfs -cat"):
        find(address.format(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def strangers_run(tmp_path) -> Path:
    """A run folder whose settings would take pictures from a command."""
    plain = to_dict(TrainConfig(data=DataConfig(path=f"pipe:touch {tmp_path}/ran")))
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "config.json").write_text(json.dumps(plain))
    return tmp_path / "evil"


def test_a_command_in_a_run_folder_is_shown_and_not_run(strangers_run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", str(strangers_run), "--steps", "2"])
    said = capsys.readouterr().err
    assert f"pipe:touch {tmp_path}/ran" in said
    assert "--data.path" in said
    main(["show", str(strangers_run)])
    assert "pipe:touch" in capsys.readouterr().out
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("by", ["flag", "toml"])
def test_a_command_that_the_user_gives_is_run(strangers_run, tmp_path, capsys, by):
    command = f"pipe:touch {tmp_path}/ran"
    (tmp_path / "mine.toml").write_text(f"[data]\npath = '{command}'\n")
    given = ["--data.path", command] if by == "flag" else ["--config", str(tmp_path / "mine.toml")]
    with pytest.raises(SystemExit):  # there are no pictures in it
        main(["train", str(strangers_run), *given])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", ["{pipe:touch ran #,b}.tar", "{gs,x}://a.tar", "{pi,x}pe:touch ran"])
def test_no_command_hides_behind_braces(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, DataError)):
        find(path)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_called_like_a_command_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipe:touch ran; true.tar").write_bytes(b"no shard")
    (tmp_path / "pipe:touch ran.tar").write_bytes(b"no shard")
    with pytest.raises(DataError, match="2 left out"):
        find(".")
    assert not list(tmp_path.glob("ran*"))


def test_packed_codes_lead_to_no_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "part-00000.npy", np.zeros((1, 1, 4), dtype=np.uint16))
    for place in ("pipe:touch ran", "pipe:touch ran.tar:0+10", "gs://a/$(touch ran)"):
        about = {"tokenizer": "", "views": 1, "seed": 0, "data": {"path": place}, "keys": "",
                 "parts": ["part-00000.npy"], "pairs": [{"key": "a", "image": place, "captions": ["a"]}]}  # fmt: skip
        (tmp_path / "index.json").write_text(json.dumps(about))
        (pair,) = Codes(tmp_path).pairs
        with pytest.raises(DataError, match="cannot be used"):
            read(pair.image)
    assert not (tmp_path / "ran").exists()
