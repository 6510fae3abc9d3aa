"""What a prior says of pictures that it is shown: nats by place, and what the caption is worth. It draws nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tessera.data.sources import Pair
from tessera.generate.likelihood import nats
from tessera.models.text_to_image import TextToImage
from tessera.tokens import text as text_tokens
from tessera.tokens.text import TextTokenizer

AMONG = 100
"""Captions that the true one is ranked among, itself included."""


def tokens_of(model: TextToImage, text: TextTokenizer, captions: Sequence[str]) -> Int[Tensor, "B T"]:
    """Captions as the prior reads them, cut where they are too long."""
    c = model.config
    ids = [text.encode(caption) for caption in captions]
    return text_tokens.pad(ids, c.text_len, c.text_vocab, True, captions).to(_device(model))


def unigram_nats(learned: Int[Tensor, "M N"], codes: Int[Tensor, "B N"], vocab: int) -> Float[Tensor, "B N"]:
    """The same by a predictor that knows no context: how often each code stands in the learned pictures, plus one."""
    counts = torch.bincount(learned.flatten(), minlength=vocab).double() + 1
    return -(counts / counts.sum()).log()[codes].float()


def unigram_codes(learned: Int[Tensor, "M N"], count: int, vocab: int, seed: int) -> Int[Tensor, "B N"]:
    """Codes drawn from the frequencies in the learned pictures, each for itself: the floor of drawing."""
    weights = torch.bincount(learned.flatten(), minlength=vocab).double()
    places = learned.shape[1]
    noise = torch.Generator().manual_seed(seed % 2**63)
    return torch.multinomial(weights, count * places, True, generator=noise).view(count, places)


def others(count: int, seed: int) -> np.ndarray:
    """For each of `count` pairs another one: a permutation that leaves none in its place, [count]."""
    assert count > 1, "a single pair has no other"
    order = np.random.default_rng([seed, 5]).permutation(count)
    mixed = np.empty(count, dtype=np.int64)
    mixed[order] = np.roll(order, 1)  # one ring through all
    return mixed


def candidates(pairs: Sequence[Pair], more: Sequence[Pair], picture: int, caption: str, seed: int) -> list[str]:
    """The true caption of a pair, then up to 99 of other pictures: of `pairs` first, then of `more`.

    No candidate is one of the picture's own captions, and none stands twice.
    """
    noise = np.random.default_rng([seed, 6, picture])
    own, found = set(pairs[picture].captions), [caption]
    for place, rest in enumerate((pairs, more)):
        for i in noise.permutation(len(rest)):
            if len(found) == AMONG or (place == 0 and i == picture):
                continue
            other = rest[i].captions[int(noise.integers(len(rest[i].captions)))]
            if other not in own:
                own.add(other)
                found.append(other)
    return found


def rank(scores: Sequence[float] | np.ndarray) -> float:
    """The place of the first score among all, 1 for the highest; equal scores share theirs."""
    scores = np.asarray(scores, dtype=np.float64)
    return 1.0 + float((scores[1:] > scores[0]).sum()) + float((scores[1:] == scores[0]).sum()) / 2


def caption_rank(model: TextToImage, text: TextTokenizer, codes: Int[Tensor, " N"], captions: Sequence[str]) -> float:
    """The rank of the first caption by the likelihood of a picture's codes under each."""
    tokens = tokens_of(model, text, captions)
    return rank(-nats(model, tokens, codes.expand(len(captions), -1)).sum(1).numpy())


def _device(model: TextToImage) -> torch.device:
    return model.image_embedding.weight.device
