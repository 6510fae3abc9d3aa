"""How much memory is free, and which errors say that it ran out."""

import sys
from types import SimpleNamespace

import pytest
import torch

from tessera.machine import memory
from tessera.machine.device import out_of_memory


def test_ranks_on_one_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=8e9))
    monkeypatch.setattr(memory, "_container", lambda: [])
    monkeypatch.setattr(memory, "_limits", lambda: [])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.free_memory(torch.device("cpu")) == 2e9


def test_only_memory_errors_are_taken_for_one():
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."))
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit")
def test_free_memory_is_what_ulimit_leaves(ranks):
    script = (
        "import resource, torch; from tessera.machine import memory; resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)); "
        "print(memory.free_memory(torch.device('cpu')) < 2**33)"
    )
    assert ranks.run(0, script) == "True\n"
