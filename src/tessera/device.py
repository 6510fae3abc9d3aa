"""Which device, and what it can do. It knows nothing else."""

from __future__ import annotations

import torch

from tessera.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """auto is CUDA where there is one. Raises ConfigError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"The device '{name}' cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16, rather than imitating it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
