"""From logits to one code: filters, noise, the draw. It knows no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tessera.config import SampleConfig
from tessera.errors import CheckpointError

Filter = Callable[[Float[Tensor, "*B K"]], Float[Tensor, "*B K"]]
"""Logits in, logits out; codes that must not be drawn become -inf."""


def filters(config: SampleConfig, vocab: int) -> list[Filter]:
    """What a SampleConfig asks for, in order. Temperature 0 is the likeliest code alone."""
    if config.temperature == 0:
        return [lambda logits: keep_top(logits, 1)]
    chosen: list[Filter] = [lambda logits: logits / config.temperature]
    if config.top_k:
        count = int(config.top_k) if config.top_k >= 1 else max(1, round(config.top_k * vocab))
        chosen.append(lambda logits: keep_top(logits, min(count, vocab)))
    if config.top_p < 1:
        chosen.append(lambda logits: keep_mass(logits, config.top_p))
    return chosen


def keep_top(logits: Float[Tensor, "*B K"], count: int) -> Float[Tensor, "*B K"]:
    """Exactly the `count` likeliest codes."""
    values, index = logits.topk(count, -1)
    return torch.full_like(logits, -torch.inf).scatter(-1, index, values)


def keep_mass(logits: Float[Tensor, "*B K"], mass: float) -> Float[Tensor, "*B K"]:
    """The fewest codes that hold `mass` of the probability (nucleus sampling, Holtzman et al. 2020)."""
    ordered, index = logits.sort(-1, descending=True)
    share = ordered.softmax(-1)
    before = share.cumsum(-1) - share
    return torch.full_like(logits, -torch.inf).scatter(-1, index, ordered.masked_fill(before >= mass, -torch.inf))


def draw(logits: Float[Tensor, "*B K"], noise: Float[Tensor, "*B K"]) -> Int[Tensor, "*B"]:
    """Gumbel-max: the largest sum of logit and noise is a draw from the softmax (Gumbel 1954).

    Logits a little different draw the same code almost always, which a cumulative sum cut at one point would not give.
    """
    return (logits + noise).argmax(-1)


class Noise:
    """Gumbel noise for every code at every position of each picture.

    A function of the picture's seed and the position alone, the same on every device and in every batch. Positions must
    be asked for in order; what lies before the last ones asked for is forgotten.
    """

    BLOCK = 32
    """Positions made at once."""

    def __init__(self, seeds: Sequence[int], choices: int, device: torch.device):
        self.sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.choices, self.device = choices, device
        self.first, self.held = 0, torch.zeros(len(seeds), 0, choices, device=device)

    def at(self, first: int, count: int) -> Float[Tensor, "B n K"]:
        while self.first + self.held.shape[1] < first + count:
            made = torch.stack([torch.rand(self.BLOCK, self.choices, generator=source) for source in self.sources])
            made.clamp_(min=2**-25)  # no code is impossible: a lone one that is kept must be drawn
            kept = self.held[:, max(0, first - self.first) :]
            self.first += self.held.shape[1] - kept.shape[1]
            self.held = torch.cat((kept, made.log_().neg_().log_().neg_().to(self.device)), 1)
        return self.held[:, first - self.first : first - self.first + count]


def _sound(logits: Tensor) -> None:
    if not logits.isfinite().all():
        raise CheckpointError(
            "The model predicts values that are not numbers: its weights are damaged, or its training came to nothing. "
            "Draw from another checkpoint (RUN/step-...), or train again."
        )
