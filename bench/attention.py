"""Where is attention written out faster than the fused kernel, forward and back, and what is that worth to a step of
`learn`'s prior? Both in turn, on this machine."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from common import median_of, row
from tessera.config import MachineConfig, TextToImageConfig, TransformerConfig
from tessera.models import saved
from tessera.nn import attention
from tessera.train.engines.single import SingleEngine

SHAPES = ((32, 3, 48), (32, 3, 93), (32, 4, 300), (4, 8, 600), (4, 8, 1280))
"""Rows, heads and places; each head has 64 channels."""


def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """As `nn.attention.attention` has it."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)).masked_fill(~mask, -torch.inf).softmax(-1) @ v


def alone() -> None:
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


def step() -> None:
    """Forward and back of a batch of 32, in bf16, without the optimiser."""
    transformer = TransformerConfig(dim=192, depth=4, heads=3)
    config = TextToImageConfig(text_vocab=300, text_len=28, image_vocab=1000, grid=8, transformer=transformer)
    network, inputs = saved.network(config).train(), saved.inputs(config, 32)
    engine, short = SingleEngine(MachineConfig(device="cpu", precision="bf16")), attention.short

    def work(written: bool) -> None:
        attention.short = short if written else lambda q: False
        with engine.autocast():
            loss = network(*inputs)[0]
        loss.backward()
        network.zero_grad()

    seconds = {True: [], False: []}
    for _ in range(5):
        for written, taken in seconds.items():
            taken.append(median_of(lambda written=written: work(written), 3)[0])
    fused, written_out = (sorted(seconds[written])[2] for written in (False, True))
    row("attention", what="step of a prior, 192 x 4", fused=fused, written_out=written_out, ratio=fused / written_out)


def main() -> None:
    alone()
    step()


if __name__ == "__main__":
    main()
