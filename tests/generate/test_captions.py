"""Completing captions."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from conftest import CLASSIC, MODERN, TINY_DVAE, prior
from tessera.config import SampleConfig
from tessera.errors import ConfigError
from tessera.generate import captions
from tessera.generate.pipeline import Pipeline
from tessera.models.dvae import DiscreteVAE
from tessera.tokens.image import Frozen
from tessera.tokens.text import Numbers


@pytest.mark.parametrize("base", [MODERN, dataclasses.replace(CLASSIC, reversible=True)], ids=["modern", "classic"])
def test_text_is_continued_as_it_was_trained(base):
    """Token by token with the past = the whole caption at once: <bos>, shift and positions included."""
    model = prior(base)
    tokens = torch.randint(1, 20, (2, 5))
    with torch.no_grad():
        whole = model.text_head.logits(model.hidden(tokens, torch.zeros(2, 0, dtype=torch.long))[:, :5])
        past = model.past(2)
        steps = [captions.continue_text(model, tokens[:, :0], past)]
        steps += [captions.continue_text(model, tokens[:, i : i + 1], past) for i in range(4)]
        assert_close(torch.stack(steps, 1), whole, atol=1e-4, rtol=1e-4)
        past = model.past(2)
        assert_close(captions.continue_text(model, tokens[:, :3], past), whole[:, 3], atol=1e-4, rtol=1e-4)


def test_captions_begin_as_asked_and_end():
    model = prior(MODERN, learn_padding=True)
    begun = torch.tensor([[4, 9], [4, 9], [4, 9]])
    rows = captions.texts(model, begun, [1, 2, 3], SampleConfig())
    assert rows[:, :2].tolist() == begun.tolist()
    for row in rows.tolist():
        ended = [i for i, token in enumerate(row) if token >= 20]
        assert ended == list(range(min(ended, default=5), 5))
        assert all(row[i] == 20 + i for i in ended)
    alone = captions.texts(model, begun[:1], [2], SampleConfig())
    assert alone[0].tolist() == rows[1].tolist()
    assert captions.texts(model, begun[:1, :0], [7], SampleConfig())[0, 0] < 20, "a caption has a first word"


def test_the_pipeline_completes_with_any_tokenizer():
    pipeline = Pipeline(prior(MODERN, image_vocab=27), Numbers(20), Frozen(DiscreteVAE(TINY_DVAE)))
    (caption,) = pipeline.complete("4 9", [0], SampleConfig())
    assert caption.split()[:2] == ["4", "9"]
    with pytest.raises(ConfigError, match="captions end at 5"):
        pipeline.complete("1 2 3 4 5", [0], SampleConfig())
