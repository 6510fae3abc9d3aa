"""Codes drawn in reading order. It knows no prompts and no pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tessera.config import SampleConfig
from tessera.generate.choose import Noise, _sound, draw, filters
from tessera.machine.device import few_rows
from tessera.models.text_to_image import TextToImage
from tessera.nn.cache import Past

Read = Callable[[Int[Tensor, "B n"], Past], Float[Tensor, "B n K"]]
"""`TextToImage.decode`, or what a compiler made of it."""


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
    `model.decode` compiled.

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
    rows = torch.cat((tokens, model.null_caption(tokens))) if guided else tokens
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
    logits = model.prefill(text, first_codes, past)[which]
    _sound(logits)
    past.spread(which)
    if read:
        past.fix()
    read = read or model.decode
    drawn[:, known:] = choose(logits[:, None], known)
    known += 1
    on_step(drawn[:, :known])
    width = min(config.ahead, total - 1)
    while known < total:
        first = min(known, total - width)  # of the codes to be drawn; the one before it is the first to be read
        past.rewind(model.layout.text + first - 1, width)
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
