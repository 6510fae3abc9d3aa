"""CLIP: padding changes nothing, and the loss is the symmetric cross-entropy."""

from __future__ import annotations

import dataclasses

import torch
from torch.testing import assert_close

from conftest import TINY_CLIP
from tessera.models.clip import CLIP


def clip() -> CLIP:
    torch.manual_seed(1)
    return CLIP(TINY_CLIP).eval()


def test_padding_is_neither_seen_nor_averaged():
    model = clip()
    short = CLIP(dataclasses.replace(TINY_CLIP, text_len=3)).eval()
    state = model.state_dict()
    short.load_state_dict({**state, "text_position.weight": state["text_position.weight"][:3]})
    tokens = torch.tensor([[3, 7, 9, 23, 24]])  # three words and the padding of the places after them
    pixels = torch.rand(1, 3, 16, 16)
    assert_close(model.scores(tokens, pixels), short.scores(tokens[:, :3], pixels))


def test_the_loss_is_the_symmetric_cross_entropy():
    model, tokens, pixels = clip(), torch.randint(0, 20, (4, 5)), torch.rand(4, 3, 16, 16)
    logits = torch.stack([torch.stack([model.scores(t[None], p[None])[0] for p in pixels]) for t in tokens])
    own = torch.arange(4)
    slow = (torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)) / 2
    loss = model(tokens, pixels)
    assert_close(loss.total, slow)
    assert loss.accuracy == (logits.argmax(0) == own).float().mean()
    assert_close(model.scores(tokens, pixels), logits.diagonal())
