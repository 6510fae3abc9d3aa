"""How much arithmetic a training step is, and how much the machine can do. It knows no loop."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tessera.models import saved
from tessera.train.engines.protocol import Machine


def training_flops(model: nn.Module) -> float:
    """Floating-point operations of one sample's forward and backward pass: three times those of the forward pass
    (Kaplan et al. 2020), counted on a model without memory. What is computed again to save memory does not count."""
    config: Any = model.config
    with torch.device("meta"), torch.no_grad():
        copy = saved.network(config).eval()
        with FlopCounterMode(display=False) as counter:
            copy(*saved.inputs(config, 1))
    return 3.0 * counter.get_total_flops()


def matrix_rate(engine: Machine) -> float:
    """Floating-point operations a second of large matrix products here, in the precision of training: the median of
    five."""
    size = 1024 if engine.device.type == "cpu" else 8192
    a = torch.randn(size, size, device=engine.device)
    times = []
    with torch.no_grad(), engine.autocast():
        for _ in range(6):
            _wait(engine.device)
            began = time.perf_counter()
            torch.mm(a, a)
            _wait(engine.device)
            times.append(time.perf_counter() - began)
    return 2 * size**3 / sorted(times[1:])[2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
