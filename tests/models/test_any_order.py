"""The prior of any order: the cache equals recomputation, any order is a likelihood, queries are alone."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from conftest import CLASSIC, MODERN
from tessera.config import AnyOrderConfig, SampleConfig, TransformerConfig
from tessera.errors import ConfigError
from tessera.generate import raster
from tessera.models.any_order import AnyOrder
from tessera.nn.stack import reversible

TOKENS = torch.tensor([[3, 4, 7, 23, 24], [1, 9, 2, 8, 24]])
CODES = torch.randint(0, 11, (2, 16), generator=torch.Generator().manual_seed(5))
ORDER = torch.rand(2, 16, generator=torch.Generator().manual_seed(6)).argsort(1)
RASTER = torch.arange(16).expand(2, -1)
OLD = dataclasses.replace(CLASSIC, shift=False)
WIRINGS = {
    "modern": MODERN,
    "classic": OLD,
    "reversible": dataclasses.replace(MODERN, reversible=True),
    "classic reversible": dataclasses.replace(OLD, reversible=True),
    "axial": dataclasses.replace(OLD, positions="axial"),
    "half": dataclasses.replace(OLD, positions="rotary_dalle1_half"),
    "stable": dataclasses.replace(OLD, stable=True),
    "sandwich": dataclasses.replace(MODERN, sandwich=True, layer_scale=True),
    "layer norm": dataclasses.replace(MODERN, norm="layer", qk_norm=False, ff="relu2"),
    "shared": dataclasses.replace(MODERN, depth=4, shared_attn=("a",), shared_ff=("x", "y")),
}


def any_prior(transformer: TransformerConfig = MODERN, query_depth: int = 2, **changes: object) -> AnyOrder:
    """With random weights everywhere, so that no branch is silent."""
    torch.manual_seed(0)
    settings = {"text_vocab": 20, "text_len": 5, "image_vocab": 11, "grid": 4, **changes}
    config = AnyOrderConfig(**settings, query_depth=query_depth, transformer=transformer)
    config.check()
    model = AnyOrder(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * (0.3 if "scale" not in name else 0.1) + ("scale" in name) * 0.5)
    return model


def one_by_one(model: AnyOrder, order: torch.Tensor) -> torch.Tensor:
    """Logits of every place, in reading order, code by code through the cache."""
    past, logits = model.past(2), []
    model.begin(TOKENS, CODES[:, :0], order[:, :0], past)
    for i in range(16):
        at = order[:, i : i + 1]
        logits.append(model.ask(at, past))
        if i < 15:
            model.read(CODES.gather(1, at), at, past)
    return torch.cat(logits, 1).gather(1, order.argsort(1)[..., None].expand(-1, -1, 11))


@pytest.mark.parametrize("name", WIRINGS)
@pytest.mark.parametrize("order", [RASTER, ORDER], ids=["raster", "random"])
@torch.inference_mode()
def test_code_by_code_is_recomputation_in_any_order(name, order):
    model = any_prior(WIRINGS[name])
    whole = model.image_logits(TOKENS, CODES, order)
    assert_close(one_by_one(model, order), whole, atol=5e-5, rtol=1e-4)
    assert whole.std() > 0.1


@pytest.mark.parametrize("name", WIRINGS)
@torch.inference_mode()
def test_reading_order_is_drawn_as_from_a_raster_prior(name):
    """The raster decoder's own calls give the logits of recomputation, and what it draws is greedy recomputation."""
    model = any_prior(WIRINGS[name])
    past = model.past(2)
    logits = [model.prefill(TOKENS, CODES[:, :3], past)]
    logits += [model.step(CODES[:, i], past) for i in range(3, 15)]
    whole = model.image_logits(TOKENS, CODES)
    assert_close(torch.stack(logits, 1), whole[:, 3:], atol=5e-5, rtol=1e-4)
    assert_close(whole, model.image_logits(TOKENS, CODES, RASTER), atol=5e-5, rtol=1e-4)
    drawn = raster.codes(model, TOKENS, (0, 1), SampleConfig(temperature=0, guidance=2.0), CODES[:, :4])
    slow = CODES[:, :4]
    while slow.shape[1] < 16:
        caption, empty = (model.image_logits(t, slow)[:, -1] for t in (TOKENS, model.null_caption(TOKENS)))
        slow = torch.cat((slow, (empty + 2.0 * (caption - empty)).argmax(-1, keepdim=True)), 1)
    assert torch.equal(drawn, slow)


def joint(model: AnyOrder, order: torch.Tensor) -> torch.Tensor:
    logp = model.image_logits(TOKENS, CODES, order).log_softmax(-1)
    return logp.gather(2, CODES[..., None])[..., 0].sum(1)


@pytest.mark.parametrize("order", [RASTER, ORDER], ids=["raster", "random"])
@torch.inference_mode()
def test_conditional_likelihoods_add_up_to_the_joint_one(order):
    """Each conditional from a model that is shown the codes before it and nothing else."""
    model, total = any_prior(), torch.zeros(2)
    for i in range(16):
        past, at = model.past(2), order[:, :i]
        model.begin(TOKENS, CODES.gather(1, at), at, past)
        asked = order[:, i : i + 1]
        total -= F.cross_entropy(model.ask(asked, past)[:, 0], CODES.gather(1, asked)[:, 0], reduction="none")
    assert_close(total, joint(model, order), atol=2e-4, rtol=1e-5)
    loss = model(TOKENS, CODES, order).image
    assert_close(loss, -total.mean() / 16, atol=2e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_likelihood_of_an_order_is_a_distribution():
    """Over all pictures of four codes of two kinds, the joint probabilities add up to one."""
    model = any_prior(image_vocab=2, grid=2)
    codes = torch.tensor([[i >> b & 1 for b in range(4)] for i in range(16)])
    tokens, order = TOKENS[:1].expand(16, -1), torch.tensor([2, 0, 3, 1]).expand(16, -1)
    logp = model.image_logits(tokens, codes, order).log_softmax(-1).gather(2, codes[..., None])[..., 0].sum(1)
    assert_close(logp.exp().sum(), torch.tensor(1.0))


@torch.inference_mode()
def test_codes_later_in_the_order_do_not_matter():
    model = any_prior()
    before = model.image_logits(TOKENS, CODES, ORDER)
    for i in (0, 3, 9, 14):
        changed = CODES.scatter(1, ORDER[:, i : i + 1], (CODES.gather(1, ORDER[:, i : i + 1]) + 1) % 11)
        after = model.image_logits(TOKENS, changed, ORDER)
        same = ORDER[:, : i + 1, None].expand(-1, -1, 11)
        assert torch.equal(after.gather(1, same), before.gather(1, same))
        later = ORDER[:, i + 1 :, None].expand(-1, -1, 11)
        assert not torch.isclose(after.gather(1, later), before.gather(1, later)).all(2).any()


@pytest.mark.parametrize("name", WIRINGS)
@torch.inference_mode()
def test_places_asked_for_together_are_those_asked_for_alone(name):
    model, past = any_prior(WIRINGS[name]), None
    past = model.past(2)
    model.begin(TOKENS, CODES.gather(1, ORDER[:, :5]), ORDER[:, :5], past)
    together = model.ask(ORDER[:, 5:], past)
    alone = torch.cat([model.ask(ORDER[:, i : i + 1], past) for i in range(5, 16)], 1)
    assert_close(together, alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_a_reversible_stack_are_those_of_plain_autograd(dropout):
    config = dataclasses.replace(MODERN, reversible=True, attn_dropout=dropout, ff_dropout=dropout)
    model = any_prior(config).train()
    found = []
    for wiring in (reversible, model.queries.wiring):
        model.transformer.wiring = wiring
        model.zero_grad()
        torch.manual_seed(3)
        model(TOKENS, CODES, ORDER).total.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        assert grad.abs().max() > 0, name
        assert_close(grad, found[1][name], atol=1e-5, rtol=1e-4)


def test_tied_weights_are_the_same_tensor():
    model = any_prior(tied=True)
    assert model.image_embedding.weight is model.image_head.weight
    assert_close(one_by_one(model, ORDER), model.image_logits(TOKENS, CODES, ORDER), atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "query_depth", "told"),
    [
        ({"patterns": ("full", "axial_row")}, 1, "patterns has axial_row, which stands on reading order"),
        ({"shift": True}, 1, "shift is on, which reads the codes above"),
        ({"positions": "none"}, 1, "positions is none"),
        ({}, 3, "query-depth is 3 of the 3 layers"),
        ({"patterns": ("all",)}, 1, "patterns has 'all'"),
    ],
)
def test_what_stands_on_reading_order_is_refused(changes, query_depth, told):
    with pytest.raises(ConfigError, match=told):
        any_prior(dataclasses.replace(MODERN, **changes), query_depth)
