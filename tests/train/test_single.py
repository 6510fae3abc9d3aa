"""The engine of one process."""

from __future__ import annotations

import numpy as np
import torch

from conftest import MODERN, prior


def test_low_precision_keeps_float32_weights(bird_folder, tmp_path):
    from tessera.config import MachineConfig
    from tessera.train.engines.single import SingleEngine

    engine = SingleEngine(MachineConfig(device="cpu", precision="bf16"))
    trainee = engine.add(prior(MODERN), lambda model: torch.optim.Adam(model.parameters(), 1e-2), clip=0.5)
    losses = []
    for _ in range(3):
        with engine.autocast():
            loss = trainee.model(torch.randint(1, 20, (2, 5)), torch.zeros(2, 16, dtype=torch.long)).total
        trainee.backward(loss)
        engine.step({"model": 1e-2})
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trainee.model.parameters())
