"""The engine of one process."""

from __future__ import annotations

import numpy as np
import torch

from conftest import MODERN, prior


def test_low_precision_keeps_float32_weights(bird_folder, tmp_path):
    from tessera.config import MachineConfig
    from tessera.train.engines.single import Single

    engine = Single(MachineConfig(device="cpu", precision="bf16"))
    engine.prepare(prior(MODERN), lambda model: torch.optim.Adam(model.parameters(), 1e-2))
    losses = []
    for _ in range(3):
        with engine.micro(last=True):
            loss = engine.model(torch.randint(1, 20, (2, 5)), torch.zeros(2, 16, dtype=torch.long)).total
        engine.backward(loss)
        engine.step(0.5, 1e-2)
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in engine.model.parameters())
