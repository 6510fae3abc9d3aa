"""Nats by place, the unigram floor, other captions, ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from conftest import MODERN, prior
from tessera.data.sources import Pair
from tessera.evaluate import likelihood
from tessera.generate import likelihood as own
from tessera.generate.likelihood import nats
from tessera.tokens.text import Numbers


@pytest.fixture(scope="module")
def model():
    return prior(MODERN)


def some(model, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    tokens = likelihood.tokens_of(model, Numbers(20), [f"{i % 20} {i % 7}" for i in range(rows)])
    return tokens, torch.randint(0, model.config.image_vocab, (rows, model.layout.codes))


def test_nats_are_what_each_code_costs_after_those_before_it(model):
    tokens, codes = some(model, 3)
    slow = torch.zeros(codes.shape)
    for place in range(codes.shape[1]):
        logits = model.image_logits(tokens, codes[:, :place])[:, place]
        slow[:, place] = -logits.log_softmax(-1)[range(3), codes[:, place]]
    assert_close(nats(model, tokens, codes), slow.detach(), rtol=1e-4, atol=1e-5)


def test_their_mean_is_the_loss_that_training_reports(model):
    tokens, codes = some(model, 4)
    assert_close(nats(model, tokens, codes).mean(), model(tokens, codes).image.detach())


def test_batches_change_nothing(model, monkeypatch):
    tokens, codes = some(model, 5)
    whole = nats(model, tokens, codes)
    monkeypatch.setattr(own, "LOGITS", 2 * model.layout.codes * model.config.image_vocab)
    assert_close(nats(model, tokens, codes), whole)


def test_the_unigram_floor_counts_learned_codes_and_one_more_of_each():
    learned = torch.tensor([[0, 0, 1], [0, 2, 2]])
    found = likelihood.unigram_nats(learned, torch.tensor([[0, 3, 2]]), 4)
    assert_close(found, -torch.tensor([[4 / 10, 1 / 10, 3 / 10]]).log())


def test_senseless_codes_have_the_learned_frequencies_and_are_a_function_of_the_seed():
    learned = torch.tensor([[0, 0, 0, 5]] * 10)
    found = likelihood.unigram_codes(learned, 2000, 7, seed=1)
    assert found.shape == (2000, 4)
    assert set(found.unique().tolist()) == {0, 5}
    assert abs(float((found == 0).float().mean()) - 0.75) < 0.02
    assert torch.equal(found, likelihood.unigram_codes(learned, 2000, 7, seed=1))
    assert not torch.equal(found, likelihood.unigram_codes(learned, 2000, 7, seed=2))


@pytest.mark.parametrize("count", [2, 3, 8, 101])
def test_every_pair_gets_another_pairs_caption(count):
    found = likelihood.others(count, seed=0)
    assert sorted(found) == list(range(count))
    assert (found != np.arange(count)).all()


def pairs(count: int, name: str) -> list[Pair]:
    return [Pair(f"{name}{i}", None, (f"{name} {i} one", f"{name} {i} two")) for i in range(count)]  # type: ignore[arg-type]


def test_candidates_are_the_true_caption_and_captions_of_other_pictures():
    held, more = pairs(30, "held"), pairs(200, "learned")
    found = likelihood.candidates(held, more, 4, "held 4 one", seed=0)
    assert found[0] == "held 4 one"
    assert len(found) == len(set(found)) == likelihood.AMONG
    assert "held 4 two" not in found, "the picture's own other caption is as true"
    assert sum(c.startswith("held") for c in found) == 30, "held-out captions come first"
    assert found == likelihood.candidates(held, more, 4, "held 4 one", seed=0)
    assert found != likelihood.candidates(held, more, 4, "held 4 one", seed=1)


def test_where_there_are_few_captions_there_are_few_candidates():
    assert len(likelihood.candidates(pairs(5, "a"), pairs(2, "b"), 0, "a 0 one", seed=0)) == 7
    same = [Pair(str(i), None, ("a bird",)) for i in range(5)]  # type: ignore[arg-type]
    assert likelihood.candidates(same, [], 0, "a bird", seed=0) == ["a bird"]


def test_ranks_count_what_is_above_and_share_ties():
    assert likelihood.rank([3.0, 1.0, 2.0]) == 1
    assert likelihood.rank([1.0, 3.0, 2.0]) == 3
    assert likelihood.rank([1.0, 1.0, 1.0]) == 2


def test_the_rank_of_a_caption_is_by_the_likelihood_of_the_codes(model):
    _, codes = some(model, 1)
    captions = ["1 2", "3", "4 5 6", "7 8"]
    sums = [float(nats(model, likelihood.tokens_of(model, Numbers(20), [c]), codes).sum()) for c in captions]
    expected = 1 + sum(s < sums[0] for s in sums[1:])
    assert likelihood.caption_rank(model, Numbers(20), codes[0], captions) == expected
    assert math.isfinite(sum(sums))
