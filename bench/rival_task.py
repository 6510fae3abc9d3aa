"""What a rival of `rivals.py` is given: pictures with captions to learn from, captions to draw, and a time. It knows
neither Tessera nor any rival.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

TASK, LEARNED, DRAWINGS, TOLD = "task.json", "learned", "drawings", "told.json"
CLOCKS = {"wall": time.monotonic, "cpu": time.process_time}
"""What a rival's seconds are; CPU seconds of one thread are fair on a machine that does other work too."""


@dataclass(frozen=True)
class Task:
    """Read from a folder; the clock runs from then on."""

    folder: Path
    pixels: int
    seconds: float
    seed: int
    flip: bool
    learned: Sequence[Sequence[str]]
    """Captions of each learned picture."""
    asked: Sequence[tuple[str, int]]
    """Captions to draw, each with a seed."""
    clock: str
    """The one in CLOCKS that counts the seconds."""
    pictures: Sequence[Tensor] = ()
    """The learned pictures, uint8 [3, H, W], larger than they are learned."""
    began: float = 0.0

    @staticmethod
    def read(folder: Path) -> Task:
        about = json.loads((folder / TASK).read_text("utf-8"))
        began = CLOCKS[about["clock"]]()
        names = (folder / LEARNED / f"{i:05d}.png" for i in range(len(about["learned"])))
        pictures = [torch.from_numpy(np.array(Image.open(name))).permute(2, 0, 1).contiguous() for name in names]
        return Task(folder=folder, pictures=pictures, began=began, **about)

    def share(self) -> float:
        """Of the time, how much is gone."""
        return self.gone() / self.seconds

    def gone(self) -> float:
        """Seconds since it was read."""
        return CLOCKS[self.clock]() - self.began

    def batches(self, size: int, crop: float, flip: bool, until: float) -> Iterator[tuple[Tensor, list[str], int]]:
        """Pictures [B, 3, S, S] in 0 ... 1, a caption of each, and the number of the step, epoch by epoch in a random
        order, until this share of the time is gone. `crop` is the least share of the area that a random square crop
        keeps of the middle square; at 1 it is the middle square."""
        noise = np.random.default_rng([self.seed, round(until * 1000)])
        step, places = 0, []
        while self.share() < until:
            if len(places) < size:
                places = [*places, *noise.permutation(len(self.pictures))]
            taken, places = places[:size], places[size:]
            pixels = torch.stack([self._cropped(self.pictures[i], crop, flip, noise) for i in taken])
            yield pixels, [str(noise.choice(self.learned[i])) for i in taken], step
            step += 1

    def _cropped(self, picture: Tensor, crop: float, flip: bool, noise: np.random.Generator) -> Tensor:
        short, spare = min(picture.shape[1:]), noise.random(2) if crop < 1 else np.full(2, 0.5)
        side = round(short * math.sqrt(noise.uniform(crop, 1.0)))
        top, left = (int(s * (n - side + 1)) for s, n in zip(spare, picture.shape[1:], strict=True))
        part = picture[None, :, top : top + side, left : left + side].float()
        small = F.interpolate(part, (self.pixels, self.pixels), mode="bilinear", antialias=True)[0].clamp(0, 255) / 255
        return small.flip(-1) if flip and noise.random() < 0.5 else small

    def keep(self, way: str, first: int, pixels: Tensor) -> None:
        """Drawings [B, 3, S, S] in 0 ... 1 of the captions from `first` on, drawn in a way that has a name."""
        folder = self.folder / DRAWINGS / way
        folder.mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate((pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()):
            Image.fromarray(picture).save(folder / f"{first + i:05d}.png")

    def tell(self, **figures: Any) -> None:
        """What it took, for the row."""
        (self.folder / TOLD).write_text(json.dumps(figures), "utf-8")


def opened() -> tuple[Task, str]:
    """The task and the name of the recipe, from the command line."""
    folder, recipe = sys.argv[1:]
    task = Task.read(Path(folder))
    torch.manual_seed(task.seed)
    return task, recipe


def bf16() -> bool:
    """Whether this processor multiplies in bf16."""
    return bool(getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)())


def parameters(*networks: torch.nn.Module) -> int:
    return sum(p.numel() for n in networks for p in n.parameters())
