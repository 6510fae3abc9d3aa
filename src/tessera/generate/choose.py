"""From logits to codes: filters, noise, the draw. It does not know the model."""

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
    """What a SampleConfig asks for, in order. Temperature 0 keeps only the likeliest code."""
    if config.temperature == 0:
        return [lambda logits: top_k(logits, 1)]
    chosen: list[Filter] = []
    if config.temperature != 1:
        chosen.append(lambda logits: logits / float(config.temperature))
    if config.top_k:
        count = int(config.top_k) if config.top_k >= 1 else max(1, round(config.top_k * vocab))
        chosen.append(lambda logits: top_k(logits, min(count, vocab)))
    if config.top_p < 1:
        chosen.append(lambda logits: top_p(logits, config.top_p))
    return chosen


def top_k(logits: Float[Tensor, "*B K"], count: int) -> Float[Tensor, "*B K"]:
    """Exactly the `count` likeliest codes."""
    values, index = logits.topk(count, -1)
    return torch.full_like(logits, -torch.inf).scatter(-1, index, values)


def top_p(logits: Float[Tensor, "*B K"], mass: float) -> Float[Tensor, "*B K"]:
    """The fewest codes that hold `mass` of the probability (nucleus sampling, Holtzman et al. 2020)."""
    ordered, index = logits.sort(-1, descending=True)
    share = ordered.softmax(-1)
    before = share.cumsum(-1) - share
    return torch.full_like(logits, -torch.inf).scatter(-1, index, ordered.masked_fill(before >= mass, -torch.inf))


def gumbel_max(logits: Float[Tensor, "*B K"], noise: Float[Tensor, "*B K"]) -> Int[Tensor, "*B"]:
    """Gumbel-max: the largest sum of logit and noise is a draw from the softmax (Gumbel 1954).

    Logits that differ a little almost always draw the same code; inverting a cumulative sum would not do that.
    """
    return (logits + noise).argmax(-1)


class Noise:
    """Gumbel noise for every code at every place of each picture.

    It depends only on the picture's seed and the place: it is the same on every device, in every batch, and in any
    order of asking. Blocks of places are made one after the other; the generator's state at the beginning of each is
    kept, so that a block that was dropped can be made again:

        seed -> | block 0 | block 1 | block 2 | ...
                s0        s1        s2        s3
    """

    BLOCK = 32
    """Places made at once."""
    HELD = 2**22
    """Numbers that are held, unless two blocks are more."""

    def __init__(self, seeds: Sequence[int], choices: int, device: torch.device):
        self.sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.choices, self.device = choices, device
        self.states = [self._states()]  # of the generators, before each block
        self.next = 0  # the block that the generators make next
        self.blocks: dict[int, Tensor] = {}
        self.most = max(2, self.HELD // max(1, len(seeds) * self.BLOCK * choices))

    def at(self, first: int, count: int) -> Float[Tensor, "B n K"]:
        """Of `count` places in a row."""
        low, high = first // self.BLOCK, (first + count - 1) // self.BLOCK
        blocks = [self._block(k) for k in range(low, high + 1)]
        start = first - low * self.BLOCK
        return (blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1))[:, start : start + count]

    def of(self, places: Sequence[int]) -> Float[Tensor, "B n K"]:
        """Of any places."""
        return torch.stack([self._block(p // self.BLOCK)[:, p % self.BLOCK] for p in places], 1)

    def _block(self, k: int) -> Float[Tensor, "B 32 K"]:
        if k not in self.blocks:
            while len(self.states) <= k:
                self._uniform(len(self.states) - 1)
            made = self._uniform(k).clamp_(min=2**-25)  # no code becomes impossible: one that is left must be drawn
            self.blocks[k] = made.log_().neg_().log_().neg_().to(self.device)
            for oldest in list(self.blocks)[: -self.most]:
                del self.blocks[oldest]
        return self.blocks[k]

    def _uniform(self, k: int) -> Float[Tensor, "B 32 K"]:
        """Block k in 0 ... 1, where the state before it is known; afterwards the state before block k + 1 is known."""
        if k != self.next:
            for source, state in zip(self.sources, self.states[k], strict=True):
                source.set_state(state)
        made = torch.stack([torch.rand(self.BLOCK, self.choices, generator=source) for source in self.sources])
        self.next = k + 1
        if self.next == len(self.states):
            self.states.append(self._states())
        return made

    def _states(self) -> list[Tensor]:
        return [source.get_state() for source in self.sources]


class Sampler:
    """Draws codes from logits as a SampleConfig asks.

    logits [B, n, K] -> temperature -> top-k -> top-p -> + noise of (seed, place) -> argmax -> codes [B, n]
    """

    def __init__(self, seeds: Sequence[int], config: SampleConfig, vocab: int, device: torch.device):
        self.noise, self.filters = Noise(seeds, vocab, device), filters(config, vocab)

    def __call__(self, logits: Float[Tensor, "B n K"], first: int) -> Int[Tensor, "B n"]:
        """Codes of place `first` and of those after it."""
        for keep in self.filters:
            logits = keep(logits)
        return gumbel_max(logits, self.noise.at(first, logits.shape[1]))


def check_finite(logits: Tensor) -> None:
    """Raise CheckpointError where a prediction is not a number."""
    if not logits.isfinite().all():
        raise CheckpointError(
            "The model predicts values that are not numbers: its weights are damaged, or its training came to nothing. "
            "Draw from another checkpoint (RUN/step-...), or train again."
        )
