"""Attention that is written out where the fused kernel is slow: the same numbers, and only there."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tessera.nn.attention import Visibility
from tessera.nn.geometry import Layout


def attended(sight: Visibility, seed: int = 0) -> list[torch.Tensor]:
    """What a whole sequence sees, and the gradients of queries, keys and values."""
    noise = torch.Generator().manual_seed(seed)
    qkv = [torch.randn(2, 3, sight.layout.length, 16, generator=noise, requires_grad=True) for _ in range(3)]
    y = sight.whole(*qkv)
    (y.float() * torch.randn(y.shape, generator=noise)).sum().backward()
    return [y.detach().float(), *(u.grad for u in qkv if u.grad is not None)]


@pytest.mark.parametrize("name", ["full", "axial_row", "conv_like"])
def test_short_sequences_in_bf16_are_attended_as_in_float32(name):
    sight = Visibility(name, Layout(text=5, grid=8))
    exact = attended(sight)
    with torch.autocast("cpu", torch.bfloat16):
        near = attended(sight)
    assert len(near) == 4
    for found, wanted in zip(near, exact, strict=True):
        assert_close(found, wanted, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("grid", "fused"), [(8, 0), (16, 1)])
def test_only_short_sequences_are_written_out(grid, fused, monkeypatch):
    calls, kernel = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or kernel(*a, **k))
    sight = Visibility("full", Layout(text=5, grid=grid))
    with torch.autocast("cpu", torch.bfloat16):
        attended(sight)
    assert len(calls) == fused
    attended(sight)
    assert len(calls) == fused + 1, "in float32 it is always the kernel"
