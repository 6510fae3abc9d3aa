"""Optimiser state that ranks wrote together: read whole, and nothing in it or in its description is ever run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from tessera.errors import CheckpointError
from tessera.train import sharded
from tessera.train.sharded import read_optimizer


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


MOMENTS = {"a.weight|exp_avg": torch.arange(6.0).view(2, 3), "a.weight|step": torch.tensor(3.0),
           "b|exp_avg": torch.ones(3, dtype=torch.bfloat16)}  # fmt: skip


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
