"""The tables of docs/scaling.md: memory for each GPU and traffic for each step, from the plan's arithmetic."""

from __future__ import annotations

import dataclasses

from tessera.config import MachineConfig, TextToImageConfig, TransformerConfig
from tessera.config.presets import preset
from tessera.train import plan

SIZES = {"0.1 B": (768, 14), "1 B": (1792, 26), "10 B": (4096, 50)}
ENGINES = {
    "DDP": MachineConfig(engine="ddp", precision="bf16", device="cpu"),
    "ZeRO 1": MachineConfig(engine="deepspeed", zero=1, precision="bf16", device="cpu"),
    "ZeRO 2": MachineConfig(engine="deepspeed", zero=2, precision="bf16", device="cpu"),
    "ZeRO 3": MachineConfig(engine="deepspeed", zero=3, precision="bf16", device="cpu"),
    "FSDP": MachineConfig(engine="fsdp", precision="bf16", device="cpu"),
}
GPUS = (1, 8, 64, 512)


def model(dim: int, depth: int) -> TextToImageConfig:
    """64 text tokens, 32 x 32 codes of 8,192."""
    transformer = TransformerConfig(dim=dim, depth=depth, heads=dim // 64)
    return TextToImageConfig(text_vocab=16384, text_len=64, image_vocab=8192, grid=32, transformer=transformer)


def main() -> None:
    for name, (dim, depth) in SIZES.items():
        base = preset("t2i-l-256")
        config = dataclasses.replace(
            base, model=model(dim, depth), machine=MachineConfig(recompute="on", precision="bf16", device="cpu"),
            optim=dataclasses.replace(base.optim, batch=512),
        )  # fmt: skip
        held, one = plan.held_bytes(config.model), plan.predict(config, 1)
        print(f"\n### {name}: dim {dim}, depth {depth}, {held / 4e9:.2f} B parameters\n")
        print(f"Activations and loss of one picture, recomputed: {plan.size(one.working - held / 2)}.")
        print(f"Sent by each of many GPUs in a step: {plan.size(2 * held)}.\n")
        print("| engine | " + " | ".join(f"{n} GPU{'s' * (n > 1)}" for n in GPUS) + " |")
        print("|---" * (len(GPUS) + 1) + "|")
        for engine, machine in ENGINES.items():
            cells = []
            for world in GPUS:
                of = plan.share(machine, world)
                copies = plan.branch_bytes(config.model) if of.weights < 1 else held / 2
                total = held * (of.weights + of.gradients + 2 * of.optimizer + of.copies) + one.working - held / 2
                cells.append(f"{(total + copies) / 1e9:.1f}")
            print(f"| {engine} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
