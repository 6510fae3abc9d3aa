"""An optimiser's memory by the names of parameters, the same under every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tessera.train.optim import Together


def whole(x: Tensor) -> Tensor:
    """A tensor that is cut up over ranks, put together; others as they are."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x  # type: ignore[attr-defined]


# An optimiser's memory by the names of parameters, the same under every engine.

Moments = dict[str, dict[str, Any]]

REMEMBERED = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"})
"""What the optimisers keep of a parameter: Adam and AdamW, and Muon."""


def check(memory: dict[str, Any], name: str, shape: torch.Size) -> None:
    """Raise ValueError where this cannot be what an optimiser remembers of a parameter of this name and shape."""
    if set(memory) not in REMEMBERED:
        raise ValueError(f"of {name} it has {', '.join(sorted(memory)) or 'nothing'}")
    for key, value in memory.items():
        wanted = torch.Size() if key == "step" else shape
        if not isinstance(value, Tensor) or value.shape != wanted or not value.is_floating_point():
            raise ValueError(f"{key} of {name} does not fit")


def moments(optimizer: torch.optim.Optimizer, model: nn.Module) -> Moments:
    """What the optimiser remembers of each parameter, whole: {"pairs.0...": {"step": ..., "exp_avg": ...}}."""
    memory = {id(p): m for part in _parts(optimizer) for p, m in part.state.items()}
    return {clean(n): dict(memory[id(p)]) for n, p in model.named_parameters() if id(p) in memory}


def set_moments(optimizer: torch.optim.Optimizer, model: nn.Module, saved: Moments) -> None:
    """Give the optimiser back what `moments` told. Raises KeyError for a parameter that this model has not."""
    named = {clean(n): p for n, p in model.named_parameters()}
    groups = {
        id(p): (part, group) for part in _parts(optimizer) for group in part.param_groups for p in group["params"]
    }
    for name, memory in saved.items():
        p = named[name]
        part, group = groups[id(p)]
        # A step count lies on the CPU unless the optimiser is fused; all else lies where the parameter does and in the
        # same order, because fused optimisers walk through memory.
        counts_on = p.device if group.get("fused") else torch.device("cpu")
        part.state[p] = {
            k: torch.empty_like(p, requires_grad=False).copy_(v)
            if v.ndim
            else v.to(counts_on, torch.float32, copy=True)
            for k, v in memory.items()
        }


def clean(name: str) -> str:
    """A parameter's name without what wrappers add to it."""
    return name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", "")


def _parts(optimizer: torch.optim.Optimizer) -> Sequence[torch.optim.Optimizer]:
    return optimizer.parts if isinstance(optimizer, Together) else [optimizer]
