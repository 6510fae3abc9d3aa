"""Codes from a prior: filters, one draw per position, guidance. It knows no prompts and no pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tessera.config import SampleConfig
from tessera.errors import CheckpointError
from tessera.machine.device import few_rows
from tessera.models.text_to_image import TextToImage
from tessera.nn.attention import Past

Filter = Callable[[Float[Tensor, "*B K"]], Float[Tensor, "*B K"]]
"""Logits in, logits out; codes that must not be drawn become -inf."""

Read = Callable[[Int[Tensor, "B n"], Past], Float[Tensor, "B n K"]]
"""`TextToImage.read`, or what a compiler made of it."""


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


@few_rows()
@torch.inference_mode()
def texts(
    model: TextToImage, tokens: Int[Tensor, "B t"], seeds: Sequence[int], config: SampleConfig
) -> Int[Tensor, "B T"]:
    """Continue captions, all of t tokens, to their ends; padding ids follow them. `tokens` is not changed."""
    total, padding = model.config.text_len, model.unconditional(tokens.new_zeros(len(tokens), model.config.text_len))
    chosen = filters(config, model.config.text_vocab + total)
    noise = Noise(seeds, model.config.text_vocab + total, tokens.device)
    past = model.past(len(tokens), dtype=model.text_embedding.weight.dtype)
    drawn = list(tokens.unbind(1))
    over = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    read = tokens
    while len(drawn) < total and not over.all():
        logits = model.continue_text(read, past)
        if read is tokens:
            _sound(logits)
        if not drawn:
            logits = logits.index_fill(1, padding[0], -torch.inf)  # a caption has a first word
        for keep in chosen:
            logits = keep(logits)
        token = draw(logits, noise.at(len(drawn), 1)[:, 0])
        over = over | (token >= model.config.text_vocab)
        drawn.append(torch.where(over, padding[:, len(drawn)], token))
        read = drawn[-1][:, None]
    return torch.cat((torch.stack(drawn, 1), padding[:, len(drawn) :]), 1) if drawn else padding


@few_rows()
@torch.inference_mode()
def codes(
    model: TextToImage,
    tokens: Int[Tensor, "B T"],
    seeds: Sequence[int],
    config: SampleConfig,
    prime: Int[Tensor, "B n"] | None = None,
    on_step: Callable[[Int[Tensor, "B n"]], None] = lambda drawn: None,
    read: Read | None = None,
) -> Int[Tensor, "B N"]:
    """Draw all codes of B pictures; the first n are taken from `prime`. `tokens` is not changed.

    With guidance the caption and the empty caption run as one batch of 2 B rows, each with its own past:
    logits = empty + guidance * (caption - empty) (Ho & Salimans 2022). `on_step` sees the codes so far; `read` may be
    `model.read` compiled.

    With `config.ahead` n > 1 the codes that follow are guessed and n positions read at once: those whose guesses turn
    out to be what is drawn are done, and what is drawn at the others are the next guesses (Jacobi decoding, Santilli et
    al. 2023). Because each position keeps its noise, the pictures are those of n = 1, but for the order of sums. Where
    n is 1, the device is waited for only when new noise goes to it.
    """
    assert not model.training
    total, batch = model.layout.codes, len(tokens)
    noise = Noise(seeds, model.config.image_vocab, tokens.device)
    chosen = filters(config, model.config.image_vocab)
    prime = tokens[:, :0] if prime is None else prime
    guided = config.guidance != 1
    rows = torch.cat((tokens, model.unconditional(tokens))) if guided else tokens
    copies = len(rows) // batch

    def choose(logits: Float[Tensor, "R n K"], first: int) -> Int[Tensor, "B n"]:
        if guided:
            caption, empty = logits.chunk(2)
            logits = empty + config.guidance * (caption - empty)
        for keep in chosen:
            logits = keep(logits)
        return draw(logits, noise.at(first, logits.shape[1]))

    drawn, known = tokens.new_zeros(batch, total), prime.shape[1]
    drawn[:, :known] = prime
    if known == total:
        return drawn
    # What several rows have in common, a caption or the want of one, is read once.
    begun, which = torch.cat((rows, prime.repeat(copies, 1)), 1).unique(dim=0, return_inverse=True)
    text, first_codes = begun.split((tokens.shape[1], known), 1)
    past = model.past(len(begun), dtype=model.image_embedding.weight.dtype)
    logits = model.begin(text, first_codes, past)[which]
    _sound(logits)
    past.spread(which)
    if read:
        past.fix()
    read = read or model.read
    drawn[:, known:] = choose(logits[:, None], known)
    known += 1
    on_step(drawn[:, :known])
    width = min(config.ahead, total - 1)
    while known < total:
        first = min(known, total - width)  # of the codes to be drawn; the one before it is the first to be read
        past.go_to(model.layout.text + first - 1, width)
        given = drawn[:, first - 1 : first - 1 + width]
        logits = read(given.repeat(copies, 1), past)
        found = choose(logits, first)[:, known - first :]
        end, right = known + found.shape[1], 1
        if width > 1:
            guessed = (found[:, :-1] == drawn[:, known : end - 1]).all(0)
            right += int(guessed.cumprod(0).sum())
            drawn[:, end:] = found[:, -1:]  # the first guess of a code is the one before it
        drawn[:, known:end] = found
        known += right
        on_step(drawn[:, :known])
    _sound(logits)  # what is not a number spreads: looking at the first and the last predictions is enough
    return drawn


def _sound(logits: Tensor) -> None:
    if not logits.isfinite().all():
        raise CheckpointError(
            "The model predicts values that are not numbers: its weights are damaged, or its training came to nothing. "
            "Draw from another checkpoint (RUN/step-...), or train again."
        )
