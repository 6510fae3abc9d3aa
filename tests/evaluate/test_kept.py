"""What was made once is read again, and what is damaged is made again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tessera.errors import ConfigError
from tessera.evaluate.kept import Kept, digest, of_tensor


class Work:
    def __init__(self):
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"x": np.arange(3) + self.calls}


def test_work_is_done_once_for_each_thing_it_depends_on(tmp_path):
    work, kept = Work(), Kept(tmp_path / "kept")
    assert kept.get("work", [1, "a"], work)["x"].tolist() == [1, 2, 3]
    assert Kept(tmp_path / "kept").get("work", [1, "a"], work)["x"].tolist() == [1, 2, 3]
    assert work.calls == 1
    assert kept.get("work", [2, "a"], work)["x"].tolist() == [2, 3, 4]
    assert kept.get("other", [1, "a"], work)["x"].tolist() == [3, 4, 5]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", b"not an array"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    work, kept = Work(), Kept(tmp_path)
    kept.get("work", 1, work)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    assert kept.get("work", 1, work)["x"].tolist() == [2, 3, 4]
    assert kept.get("work", 1, work)["x"].tolist() == [2, 3, 4]


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written"):
        Kept(tmp_path / "kept").get("work", 1, Work())


def test_digests_tell_what_differs():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    a = torch.arange(6, dtype=torch.uint8)
    assert of_tensor(a) == of_tensor(a.clone()) != of_tensor(a.view(2, 3))
    assert of_tensor(a) != of_tensor(a.int())
