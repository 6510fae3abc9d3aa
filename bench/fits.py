"""The table of docs/memory.md: how many pictures at a time cards of usual sizes train on, by the plan."""

from __future__ import annotations

import dataclasses
from typing import Any

from tessera.config import MachineConfig, TextToImageConfig
from tessera.config.presets import CLIP, DVAE, T2I, preset
from tessera.train import plan

GRIDS = {"64": 8, "128": 16, "256": 32}
MOST = 4096
"""More pictures at a time than this are of no use."""


def resolved(name: str) -> Any:
    """A preset's model for pictures of its size, captions of 64 tokens, and vocabularies of 16,384 and 8,192."""
    model = preset(name).model
    if not isinstance(model, TextToImageConfig):
        return dataclasses.replace(model, text_vocab=16384, text_len=64) if hasattr(model, "text_vocab") else model
    if name == "t2i-dalle1-256":  # the notebook's
        return dataclasses.replace(model, text_vocab=49408, image_vocab=8192, grid=32)
    return dataclasses.replace(
        model, text_vocab=16384, text_len=64, image_vocab=8192, grid=GRIDS[name.rpartition("-")[2]]
    )


def at_a_time(name: str, gigabytes: int, recompute: str, plans: dict[str, Any]) -> int:
    if recompute not in plans:
        machine = MachineConfig(precision="bf16", device="cpu", recompute=recompute)  # type: ignore[arg-type]
        plans[recompute] = plan.scaled(dataclasses.replace(preset(name), model=resolved(name), machine=machine))
    free, fitting = plan.SAFE * (gigabytes - plan.CONTEXT) * 1e9, 0
    step = MOST
    while step:
        if fitting + step <= MOST and plans[recompute](fitting + step).total <= free:
            fitting += step
        step //= 2
    return fitting


def main() -> None:
    print("| preset | parameters | " + " | ".join(f"{card} GB" for card in plan.CARDS) + " |")
    print("|---" * (len(plan.CARDS) + 2) + "|")
    for name in (*T2I, "t2i-dalle1-256", *DVAE, *CLIP):
        plans: dict[str, Any] = {}
        cells = []
        for card in plan.CARDS:
            kept = at_a_time(name, card, "off", plans)
            again = at_a_time(name, card, "on", plans) if name in T2I or "dalle1" in name else kept
            cells.append(f"{kept:,}" if kept == again else f"{kept:,} ({again:,})")
        count = plan.held_bytes(resolved(name)) / 4e6
        print(f"| `{name}` | {count:,.1f} M | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
