"""Memory for time: whether activations are kept for the backward pass or computed again. It knows no engine."""

from __future__ import annotations

from torch import nn

from tessera.nn.stack import Branch, Transformer, reversible, reversible_kept

KEEPING = {reversible: reversible_kept}
"""Wirings that compute activations again, and the same ones without."""


def economise(model: nn.Module, recompute: str) -> None:
    """Memory for time. "on": reversible stacks compute activations again, residual ones keep only what enters each
    branch (Chen et al. 2016); "off" keeps everything; "auto" is on for reversible stacks alone. No number changes."""
    stacks = [m for m in model.modules() if isinstance(m, Transformer)]
    if recompute == "off":
        for stack in stacks:
            stack.wiring = KEEPING.get(stack.wiring, stack.wiring)
    elif recompute == "on" and not all(stack.wiring in KEEPING for stack in stacks):
        from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

        apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, Branch))
