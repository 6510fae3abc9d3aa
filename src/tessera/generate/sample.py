"""Codes from a prior: filters, one draw per position, guidance. It knows no prompts and no pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tessera.config import SampleConfig
from tessera.device import few_rows
from tessera.models.text_to_image import TextToImage
from tessera.nn.attention import Past

Filter = Callable[[Float[Tensor, "B K"]], Float[Tensor, "B K"]]
"""Logits in, logits out; codes that must not be drawn become -inf."""

Read = Callable[[Int[Tensor, "B"], Past], Float[Tensor, "B K"]]
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


def keep_top(logits: Float[Tensor, "B K"], count: int) -> Float[Tensor, "B K"]:
    """Exactly the `count` likeliest codes."""
    values, index = logits.topk(count, -1)
    return torch.full_like(logits, -torch.inf).scatter(-1, index, values)


def keep_mass(logits: Float[Tensor, "B K"], mass: float) -> Float[Tensor, "B K"]:
    """The fewest codes that hold `mass` of the probability (nucleus sampling, Holtzman et al. 2020)."""
    ordered, index = logits.sort(-1, descending=True)
    share = ordered.softmax(-1)
    before = share.cumsum(-1) - share
    return torch.full_like(logits, -torch.inf).scatter(-1, index, ordered.masked_fill(before >= mass, -torch.inf))


def draw(logits: Float[Tensor, "B K"], uniform: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """The code at the point `uniform` (0 ... 1) of the cumulative distribution."""
    cumulative = logits.float().softmax(-1).cumsum(-1)
    point = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, point, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def uniforms(seeds: Sequence[int], count: int) -> Float[Tensor, "B N"]:
    """The noise of each picture: a function of its seed alone, the same on every device and in every batch."""
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(rows).float()


@few_rows()
@torch.inference_mode()
def texts(
    model: TextToImage, tokens: Int[Tensor, "B t"], seeds: Sequence[int], config: SampleConfig
) -> Int[Tensor, "B T"]:
    """Continue captions, all of t tokens, to their ends; padding ids follow them. `tokens` is not changed."""
    total, padding = model.config.text_len, model.unconditional(tokens.new_zeros(len(tokens), model.config.text_len))
    chosen = filters(config, model.config.text_vocab + total)
    noise = uniforms(seeds, total).to(tokens.device)
    past = model.past(len(tokens), dtype=model.text_embedding.weight.dtype)
    drawn = list(tokens.unbind(1))
    over = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    read = tokens
    while len(drawn) < total and not over.all():
        logits = model.continue_text(read, past)
        if not drawn:
            logits = logits.index_fill(1, padding[0], -torch.inf)  # a caption has a first word
        for keep in chosen:
            logits = keep(logits)
        token = draw(logits, noise[:, len(drawn)])
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
    `model.read` compiled. Nothing here waits for the device.
    """
    assert not model.training
    total, batch = model.layout.codes, len(tokens)
    noise = uniforms(seeds, total).to(tokens.device)
    chosen = filters(config, model.config.image_vocab)
    prime = tokens[:, :0] if prime is None else prime
    guided = config.guidance != 1
    rows = torch.cat((tokens, model.unconditional(tokens))) if guided else tokens
    copies = len(rows) // batch
    past = model.past(len(rows), dtype=model.image_embedding.weight.dtype)
    if read:
        past.fix()
    read = read or model.read
    drawn, count = tokens.new_zeros(batch, total), prime.shape[1]
    drawn[:, :count] = prime
    if count == total:
        return drawn
    logits = model.begin(rows, prime.repeat(copies, 1), past)
    while True:
        if guided:
            caption, empty = logits.chunk(2)
            logits = empty + config.guidance * (caption - empty)
        for keep in chosen:
            logits = keep(logits)
        drawn[:, count] = code = draw(logits, noise[:, count])
        count += 1
        on_step(drawn[:, :count])
        if count == total:
            return drawn
        past.advance(1)
        logits = read(code.repeat(copies), past)
