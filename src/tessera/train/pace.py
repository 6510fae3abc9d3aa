"""How fast this machine trains a model, measured before it does. It knows no data."""

from __future__ import annotations

import time
from typing import Any

import torch

from tessera.config import MachineConfig, NetworkConfig
from tessera.machine.device import choose_device
from tessera.models import saved
from tessera.train.engines.single import SingleEngine

STEPS = 3
"""That are timed, after one that is not."""


def pictures_a_second(model: NetworkConfig, machine: MachineConfig, batch: int) -> float:
    """Pictures that go forward and back through a fresh model in a second, by the fastest of a few steps of `batch`.

    `model` must be resolved. The optimiser, the data and what looks at pictures besides the model are not in it.
    """
    device = choose_device(machine.device)
    network: Any = saved.network(model).train().to(device)
    engine = SingleEngine(machine)
    inputs = [x.to(device) if isinstance(x, torch.Tensor) else x for x in saved.inputs(model, batch)]
    times = []
    for _ in range(1 + STEPS):
        began = time.perf_counter()
        with engine.autocast():
            loss = network(*inputs)[0]
        loss.backward()
        network.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return batch / min(times[1:])
