"""How many pictures a second come from JPEG (against Pillow), and how many samples from packed codes, on one core."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common import median_of, row
from tessera.config import DataConfig
from tessera.data.batches import Captions, Packed, Pictures, Place
from tessera.data.codes import Codes
from tessera.data.pictures import random_square
from tessera.data.sources import Pair
from tessera.tokens.text import train_bpe

torch.set_num_threads(1)
COUNT, PIXELS = 64, 256


def photographs(folder: Path) -> list[Pair]:
    """JPEGs of 500 x 375 with the detail of photographs."""
    pairs = []
    for i in range(COUNT):
        noise = np.random.default_rng(i)
        coarse = Image.fromarray(noise.integers(0, 255, (47, 63, 3), dtype=np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        fine = np.asarray(coarse, dtype=np.int16) + noise.integers(-12, 12, (375, 500, 3))
        path = folder / f"{i}.jpg"
        Image.fromarray(fine.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        pairs.append(Pair(path.name, path, ("a red bird",)))
    return pairs


def with_pillow(pairs: list[Pair]) -> None:
    noise = np.random.default_rng(0)
    for pair in pairs:
        picture = Image.open(io.BytesIO(pair.image.read_bytes())).convert("RGB")
        top, left, side = random_square(picture.height, picture.width, 0.75, noise)
        small = picture.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        torch.from_numpy(np.array(small)).permute(2, 0, 1)


def pictures(folder: Path) -> None:
    pairs = photographs(folder)
    tokenizer = train_bpe(["a red bird"] * 3, 300)
    source = Pictures(pairs, DataConfig(crop=0.75, flip=True), PIXELS, 3, 0, Captions(pairs, tokenizer, 8, False))
    places = [Place(i, 0) for i in range(COUNT)]
    ours, spread = median_of(lambda: source.gather([source[p] for p in places]))
    theirs, _ = median_of(lambda: with_pillow(pairs))
    row("data-jpeg", figure=round(COUNT / ours), unit="pictures/s", spread=round(spread / ours, 3),
        alternative="Pillow", ratio=round(theirs / ours, 2))  # fmt: skip


def packed(folder: Path) -> None:
    count, batch = 20_000, 512
    tokenizer = train_bpe(["a small red bird with a white belly"] * 3, 300)
    pairs = [Pair(str(i), folder / "none", ("a small red bird with a white belly",)) for i in range(count)]
    codes = object.__new__(Codes)
    codes.index, codes.pairs, codes.rows = {}, pairs, np.arange(count)
    codes.parts = [np.zeros((256, 4, 256), dtype=np.uint16) for _ in range(-(-count // 256))]
    source = Packed(codes, Captions(pairs, tokenizer, 16, False), 0)
    order = np.random.default_rng(0).permutation(count)
    batches = [[Place(int(i), 0) for i in order[k : k + batch]] for k in range(0, count - batch, batch)]

    def epoch() -> None:
        for places in batches:
            source.gather(source.__getitems__(places))

    ours, spread = median_of(epoch)
    row("data-codes", figure=round(len(batches) * batch / ours), unit="samples/s", spread=round(spread / ours, 3))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        pictures(Path(place))
        packed(Path(place))
