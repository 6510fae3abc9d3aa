"""Seats whose steps are compiled draw what each picture is alone: on the device that the first word names. A script of
its own, because the shape checks of other tests cannot be traced."""

import random
import sys
from functools import partial

import torch

from tessera.config import SampleConfig, TextToImageConfig, TransformerConfig
from tessera.generate import raster
from tessera.generate.weights import compiled, prepare
from tessera.models.text_to_image import TextToImage
from tessera.serve.seats import Drawing, Seats, places_needed

CONFIGS = (
    TransformerConfig(dim=32, depth=2, heads=2, head_dim=16, zero_init=False),
    TransformerConfig(
        dim=32, depth=2, heads=2, head_dim=12, positions="rotary_dalle1", norm="layer", qk_norm=False, ff="geglu",
        bias=True, shift=True, layer_scale=True, zero_init=False, patterns=("full", "axial_row"),
    ),
)  # fmt: skip
WAYS = [SampleConfig(), SampleConfig(guidance=2.0), SampleConfig(temperature=0.7, top_k=4)]


def main(device: str, count: int) -> None:
    for config in CONFIGS[:count]:
        torch.manual_seed(0)
        settings = TextToImageConfig(text_vocab=20, text_len=5, image_vocab=11, grid=4, transformer=config)
        model = prepare(TextToImage(settings).eval().to(device), "float32", True)
        seats, chance, finished, different = Seats(model, 8, partial(compiled, model)), random.Random(0), 0, 0
        print("sizes", seats.sizes, flush=True)
        waiting = []
        for n in range(16):
            tokens = torch.tensor([[n % 19 + 1, 3, 22, 23, 24]], device=device)
            given = torch.zeros(1, chance.choice([0, 0, 4]), dtype=torch.long, device=device)
            waiting.append(Drawing(tokens, given, n, chance.choice(WAYS)))
        alone = {d: raster.codes(model, d.tokens, [d.seed], d.sampling, d.given)[0].tolist() for d in waiting}
        while waiting or seats.drawings:
            while waiting and seats.free >= places_needed(waiting[-1].sampling) and chance.random() < 0.5:
                seats.sit(waiting.pop())
            for d in seats.drawings:
                if not seats.left(d):
                    different += seats.canvas(d)[0][0].tolist() != alone[d]
                    finished += 1
                    seats.leave(d)
            if seats.drawings:
                seats.step()
        print(finished, "finished,", different, "different", flush=True)
        assert finished == 16
        assert different == 0


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
