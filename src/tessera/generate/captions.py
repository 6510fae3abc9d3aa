"""Captions that the prior completes. It does not know pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tessera.config import SampleConfig
from tessera.errors import ConfigError
from tessera.generate.choose import Noise, check_finite, filters, gumbel_max
from tessera.generate.prompts import Prompts
from tessera.machine.device import few_rows
from tessera.models.text_to_image import BOS, TextToImage
from tessera.nn.cache import Past


@few_rows()
@torch.inference_mode()
def texts(
    model: TextToImage, tokens: Int[Tensor, "B t"], seeds: Sequence[int], config: SampleConfig
) -> Int[Tensor, "B T"]:
    """Captions that begin with t tokens each, completed by the model; padding ids follow. `tokens` is not changed."""
    total, padding = model.config.text_len, model.null_caption(tokens.new_zeros(len(tokens), model.config.text_len))
    chosen = filters(config, model.config.text_vocab + total)
    noise = Noise(seeds, model.config.text_vocab + total, tokens.device)
    past = model.past(len(tokens), dtype=model.text_embedding.weight.dtype)
    drawn = list(tokens.unbind(1))
    over = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    read = tokens
    while len(drawn) < total and not over.all():
        logits = continue_text(model, read, past)
        if read is tokens:
            check_finite(logits)
        if not drawn:
            logits = logits.index_fill(1, padding[0], -torch.inf)  # a caption has a first word
        for keep in chosen:
            logits = keep(logits)
        token = gumbel_max(logits, noise.at(len(drawn), 1)[:, 0])
        over = over | (token >= model.config.text_vocab)
        drawn.append(torch.where(over, padding[:, len(drawn)], token))
        read = drawn[-1][:, None]
    return torch.cat((torch.stack(drawn, 1), padding[:, len(drawn) :]), 1) if drawn else padding


def continue_text(model: TextToImage, tokens: Int[Tensor, "B t"], past: Past) -> Float[Tensor, "B V"]:
    """Read <bos> if nothing was read yet, then `tokens`; logits of the token that follows."""
    if not past.seen:
        tokens = torch.cat((tokens.new_full((len(tokens), 1), BOS), tokens), 1)
    past.advance(tokens.shape[1])
    x = model.text_embedding(tokens) + F.embedding(past.places, model.text_position)
    return model.text_head.logits(model.finish(model.transformer(x, past)[:, -1]))


def completed(
    model: TextToImage, prompts: Prompts, beginning: str, seeds: Sequence[int], config: SampleConfig
) -> list[str]:
    """The words of a caption that begins like this, once for each seed. Raises ConfigError where nothing fits behind
    the beginning."""
    ids = torch.tensor([prompts.encode(beginning)], dtype=torch.long, device=model.text_embedding.weight.device)
    if ids.shape[1] >= prompts.length:
        raise ConfigError(f"The beginning has {ids.shape[1]} tokens; captions end at {prompts.length}.")
    return [prompts.caption(row) for row in texts(model, ids.repeat(len(seeds), 1), seeds, config).tolist()]
