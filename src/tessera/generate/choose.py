"""From logits to one code: filters, noise, the draw. It knows no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tessera.config import SampleConfig
from tessera.errors import CheckpointError
from tessera.generate.decoder import Drawn

Filter = Callable[[Float[Tensor, "*B K"]], Float[Tensor, "*B K"]]
"""Logits in, logits out; codes that must not be drawn become -inf."""


def filters(config: SampleConfig, vocab: int) -> list[Filter]:
    """What a SampleConfig asks for, in order. Temperature 0 is the likeliest code alone."""
    if config.temperature == 0:
        return [lambda logits: keep_top(logits, 1)]
    chosen: list[Filter] = [lambda logits: logits / float(config.temperature)]
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
    """Gumbel noise for every code at every place of each picture.

    A function of the picture's seed and the place alone: the same on every device, in every batch and in whatever order
    places are asked for. It is made in blocks of places, in order:

        seed | block 0 | block 1 | block 2 | ...       what each begins with is remembered, so that a block which was
             s0        s1        s2        s3          forgotten can be made again
    """

    BLOCK = 32
    """Places made at once."""
    HELD = 2**22
    """Numbers that are held, unless two blocks are more."""

    def __init__(self, seeds: Sequence[int], choices: int, device: torch.device):
        self.sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.choices, self.device = choices, device
        self.begins = [self._states()]
        self.stands = 0  # the block that the sources make next
        self.blocks: dict[int, Tensor] = {}
        self.most = max(2, self.HELD // max(1, len(seeds) * self.BLOCK * choices))

    def at(self, first: int, count: int) -> Float[Tensor, "B n K"]:
        """Of `count` places in a row."""
        low, high = first // self.BLOCK, (first + count - 1) // self.BLOCK
        blocks = [self._block(k) for k in range(low, high + 1)]
        whole = blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)
        return whole[:, first - low * self.BLOCK :][:, :count]

    def of(self, places: Sequence[int]) -> Float[Tensor, "B n K"]:
        """Of any places."""
        return torch.stack([self._block(p // self.BLOCK)[:, p % self.BLOCK] for p in places], 1)

    def _block(self, k: int) -> Float[Tensor, "B 32 K"]:
        if k not in self.blocks:
            while len(self.begins) <= k:
                self._made(len(self.begins) - 1)
            made = self._made(k).clamp_(min=2**-25)  # no code is impossible: a lone one that is kept must be drawn
            self.blocks[k] = made.log_().neg_().log_().neg_().to(self.device)
            for oldest in list(self.blocks)[: -self.most]:
                del self.blocks[oldest]
        return self.blocks[k]

    def _made(self, k: int) -> Float[Tensor, "B 32 K"]:
        """Block k in 0 ... 1, where what it begins with is known; what the next one begins with is then known too."""
        if k != self.stands:
            for source, state in zip(self.sources, self.begins[k], strict=True):
                source.set_state(state)
        made = torch.stack([torch.rand(self.BLOCK, self.choices, generator=source) for source in self.sources])
        self.stands = k + 1
        if self.stands == len(self.begins):
            self.begins.append(self._states())
        return made

    def _states(self) -> list[Tensor]:
        return [source.get_state() for source in self.sources]


class Choice:
    """Codes drawn from logits as a SampleConfig asks, each picture with the noise of its seed."""

    def __init__(self, seeds: Sequence[int], config: SampleConfig, vocab: int, device: torch.device):
        self.noise, self.filters = Noise(seeds, vocab, device), filters(config, vocab)

    def __call__(self, logits: Float[Tensor, "B n K"], first: int) -> Drawn:
        """Codes at `first` and the places that follow."""
        predicted = logits.float().log_softmax(-1)
        for keep in self.filters:
            logits = keep(logits)
        codes = draw(logits, self.noise.at(first, logits.shape[1]))
        log_probability = predicted.gather(-1, codes[..., None])[..., 0]
        return Drawn(codes, log_probability, -(predicted.exp() * predicted).sum(-1))


def sound(logits: Tensor) -> None:
    """Raise CheckpointError where a prediction is not a number."""
    if not logits.isfinite().all():
        raise CheckpointError(
            "The model predicts values that are not numbers: its weights are damaged, or its training came to nothing. "
            "Draw from another checkpoint (RUN/step-...), or train again."
        )
