"""The original's back ends, one process of them."""

from __future__ import annotations

import pytest
import torch

from tessera.errors import ConfigError


def test_a_backend_used_too_early_says_so(monkeypatch):
    import argparse

    from tessera.compat.dalle_pytorch import distributed_utils as du

    monkeypatch.setattr(du, "stay_on_the_cpu", lambda: None)
    monkeypatch.setattr(du, "backend", None)
    with pytest.raises(ConfigError, match="set_backend_from_args"):
        du.using_backend("Dummy")
    args = du.wrap_arg_parser(argparse.ArgumentParser()).parse_args([])
    backend = du.set_backend_from_args(args)
    backend.is_initialized = False
    with pytest.raises(ConfigError, match="Dummy backend has not been initialized"):
        backend.get_rank()
    backend.initialize()
    assert (backend.get_world_size(), backend.is_root_worker(), du.is_distributed) == (1, True, False)
    assert du.using_backend(du.DummyBackend)
    model, data = torch.nn.Linear(2, 2), [1]
    assert backend.distribute(model=model, optimizer=None, training_data=data) == (model, None, data, None)
    assert backend.average_all(torch.tensor(3.0)) == 3
    with pytest.raises(ConfigError, match="can't be smaller"):
        backend.check_batch_size(0)
    args.distributed_backend = "Telepathy"
    with pytest.raises(ValueError, match="unknown backend Telepathy"):
        du.set_backend_from_args(args)
