"""Drawing: filters keep what they should, a seed is a picture in any batch, frequencies follow the probabilities."""

import pytest
import torch

from conftest import CLASSIC, MODERN, prior
from tessera.config import SampleConfig
from tessera.errors import ConfigError
from tessera.generate import sample
from tessera.generate.weights import prepare

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


@pytest.mark.parametrize(("kind", "near"), [("float32", 1e-5), ("bf16", 0.05), ("int8", 0.05)])
@pytest.mark.parametrize("config", [MODERN, CLASSIC], ids=["modern", "dalle1"])
def test_prepared_weights_give_the_logits_of_the_plain_model(config, kind, near):
    tokens, codes = torch.tensor([[3, 4, 7, 23, 24], [5, 21, 22, 23, 24]]), torch.randint(0, 11, (2, 15))
    with torch.no_grad():
        wanted = prior(config).image_logits(tokens, codes)
        fast = prepare(prior(config), kind)
        assert (fast.image_logits(tokens, codes) - wanted).abs().max() < near * wanted.abs().max()
        past = fast.past(2)
        steps = [fast.begin(tokens, codes[:, :0], past), *(fast.step(codes[:, i], past) for i in range(15))]
        assert (torch.stack(steps, 1) - wanted).abs().max() < near * wanted.abs().max()


def test_other_weights_are_refused():
    with pytest.raises(ConfigError, match="int4"):
        prepare(prior(MODERN), "int4")


def test_each_step_shows_the_codes_so_far():
    model, tokens, seen = prior(MODERN), torch.tensor([[3, 4, 7, 23, 24]]), []
    drawn = sample.codes(model, tokens, [1], SampleConfig(), tokens[:, :2], lambda so_far: seen.append(so_far.clone()))
    assert [len(s[0]) for s in seen] == list(range(3, 17))
    assert all(torch.equal(s, drawn[:, : s.shape[1]]) for s in seen)


@pytest.mark.parametrize("bad", [{"temperature": -1.0}, {"top_k": 2.5}, {"top_p": 0.0}])
def test_impossible_sampling_is_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad)).replace("_", "-")):
        SampleConfig(**bad).check()
