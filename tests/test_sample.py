"""Drawing: filters keep what they should, a seed is a picture in any batch, frequencies follow the probabilities."""

import pytest
import torch

from conftest import MODERN, prior
from tessera.config import SampleConfig
from tessera.errors import ConfigError
from tessera.generate import sample

LOGITS = torch.tensor([[0.1, 3.0, 2.0, -1.0, 2.5], [5.0, 0.3, 0.0, -0.2, 0.1]])


def test_keep_top_counts_exactly():
    kept = sample.keep_top(LOGITS, 2).isfinite()
    assert kept.tolist() == [[False, True, False, False, True], [True, True, False, False, False]]


def test_top_k_below_one_is_a_share_of_the_image_codes():
    keep = sample.filters(SampleConfig(top_k=0.4), 5)[-1]
    assert keep(LOGITS).isfinite().sum(-1).tolist() == [2, 2]


def test_keep_mass_is_the_smallest_set():
    share = LOGITS.softmax(-1)
    kept = sample.keep_mass(LOGITS, 0.8).isfinite()
    for row, ok in zip(share, kept, strict=True):
        assert row[ok].sum() >= 0.8
        assert row[ok].sum() - row[ok].min() < 0.8
        assert row[ok].min() >= row[~ok].max()


def test_draws_follow_the_probabilities():
    uniform = torch.linspace(0, 1, 100_001)[:-1]
    drawn = sample.draw(LOGITS[:1].expand(len(uniform), -1), uniform)
    share = torch.bincount(drawn, minlength=5) / len(uniform)
    torch.testing.assert_close(share, LOGITS[0].softmax(-1), atol=1e-4, rtol=0)


def test_a_filtered_code_is_never_drawn():
    for u in (0.0, 0.3, 0.999999, 1.0 - 2**-24):
        drawn = sample.draw(sample.keep_top(LOGITS, 2), torch.full((2,), u))
        assert drawn[0] in (1, 4)
        assert drawn[1] in (0, 1)


def test_a_seed_is_the_same_picture_alone_and_in_any_batch():
    model = prior(MODERN)
    tokens = torch.tensor([[3, 4, 7, 23, 24]])
    config = SampleConfig(guidance=2.0, top_p=0.9)
    alone = [sample.codes(model, tokens, [seed], config)[0] for seed in (7, 8, 9)]
    together = sample.codes(model, tokens.expand(3, -1), [9, 7, 8], config)
    assert torch.equal(together, torch.stack([alone[2], alone[0], alone[1]]))
    assert not torch.equal(alone[0], alone[1])


def test_laying_out_for_decoding_changes_no_number():
    model, tokens = prior(MODERN), torch.tensor([[3, 4, 7, 23, 24]])
    before = sample.codes(model, tokens, [1], SampleConfig())
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(sample.codes(sample.lay_out_for_decoding(model), tokens, [1], SampleConfig()), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("bad", [{"temperature": -1.0}, {"top_k": 2.5}, {"top_p": 0.0}])
def test_impossible_sampling_is_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad)).replace("_", "-")):
        SampleConfig(**bad).check()
