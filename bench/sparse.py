"""Do layers with sparse patterns cost less than full attention at 4,096 image positions, in training and in drawing?"""

from __future__ import annotations

import dataclasses

import torch

from common import median_of, row
from tessera.config import MachineConfig, TextToImageConfig, TransformerConfig
from tessera.generate.weights import prepare
from tessera.models.text_to_image import TextToImage
from tessera.train.engines.single import SingleEngine

PATTERNS = ("full", "axial_row", "axial_col", "conv_like")


def config(pattern: str) -> TextToImageConfig:
    transformer = TransformerConfig(dim=256, depth=2, heads=4, patterns=(pattern,))
    return TextToImageConfig(text_vocab=1000, text_len=64, image_vocab=1024, grid=64, transformer=transformer)


def main() -> None:
    tokens, codes = torch.randint(1, 1000, (1, 64)), torch.randint(0, 1024, (1, 4096))
    full: dict[str, float] = {}
    for pattern in PATTERNS:
        engine = SingleEngine(MachineConfig(device="cpu", precision="float32", compile="off"))
        engine.add(TextToImage(config(pattern)), lambda m: torch.optim.SGD(m.parameters(), lr=0.0), clip=1.0)

        def step(engine: SingleEngine = engine) -> None:
            trainee = engine.trainees["model"]
            trainee.backward(trainee.model(tokens, codes).total)
            engine.step({"model": 0.0})

        model = prepare(TextToImage(dataclasses.replace(config(pattern))).eval())
        past = model.past(1)
        with torch.inference_mode():
            model.prefill(tokens, codes[:, :3900], past)

            def some(model: TextToImage = model, past=past) -> None:
                for i in range(25):
                    model.step(codes[:, 3900 + i], past)

            drawing, drawing_spread = median_of(some, times=5, warm=1)
        training, training_spread = median_of(step)
        for what, seconds, spread in (
            ("training step", training, training_spread),
            ("a code at position 3,900", drawing / 25, drawing_spread / 25),
        ):
            full.setdefault(what, seconds)
            row("sparse", configuration=f"{pattern}, {what}", seconds=seconds, spread=spread,
                alternative="full attention", ratio=full[what] / seconds)  # fmt: skip


if __name__ == "__main__":
    main()
