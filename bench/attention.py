"""Where is attention written out faster than the fused kernel, forward and back? Both in turn, on this machine."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from common import median_of, row

SHAPES = ((32, 3, 48), (32, 3, 93), (32, 4, 300), (4, 8, 600), (4, 8, 1280))
"""Rows, heads and places; each head has 64 channels."""


def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """As `nn.attention.attention` has it."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)).masked_fill(~mask, -torch.inf).softmax(-1) @ v


def main() -> None:
    for rows, heads, places in SHAPES:
        mask = torch.ones(places, places, dtype=torch.bool).tril()
        for dtype in (torch.bfloat16, torch.float32):
            q, k, v = (torch.randn(rows, heads, places, 64, requires_grad=True) for _ in range(3))

            def work(way, q=q, k=k, v=v, mask=mask, dtype=dtype) -> None:
                with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
                    out = way(q, k, v, mask)
                out.backward(torch.ones_like(out))

            seconds = {way.__name__: median_of(lambda way=way: work(way))[0] for way in (fused, written_out)}
            row(
                "attention", rows=rows, heads=heads, places=places, dtype=str(dtype).removeprefix("torch."),
                **seconds, ratio=seconds["fused"] / seconds["written_out"],
            )  # fmt: skip


if __name__ == "__main__":
    main()
