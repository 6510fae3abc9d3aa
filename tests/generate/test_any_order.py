"""Drawing in any order: it is recomputation, a seed is one picture in any batch, and what is known stays."""

import dataclasses

import pytest
import torch

from conftest import MODERN, prior
from models.test_any_order import CODES, TOKENS, any_prior
from tessera.config import SampleConfig
from tessera.config.any_order import refuse_order
from tessera.errors import ConfigError
from tessera.generate.any_order import AnyOrderDecoder, guidance_at
from tessera.generate.choose import Noise
from tessera.generate.decoder import DrawingBatch
from tessera.generate.orders import halton, sequence, totals
from tessera.generate.raster import RasterDecoder

HOLES = torch.zeros(16, dtype=torch.bool)
HOLES[[0, 3, 5, 6, 7, 11, 15]] = True
ALL = torch.ones(16, dtype=torch.bool)
ORDERS = ["raster", "halton", "random", "confidence"]


def batch(sampling: SampleConfig, mask: torch.Tensor = ALL, rows: slice = slice(None)) -> DrawingBatch:
    return DrawingBatch(TOKENS[rows], CODES[rows], mask[rows] if mask.ndim > 1 else mask, [4, 9][rows], sampling)


def slow(model, asked: DrawingBatch) -> torch.Tensor:
    """Every step from nothing: no cache is kept, each row is alone, and every place has its own query."""
    s, found = asked.sampling, []
    for row, seed in enumerate(asked.seeds):
        codes, left = asked.known[row].clone(), [p for p in sequence(s, [seed], 4)[0].tolist() if asked.mask[p]]
        seen, noise = [p for p in range(16) if not asked.mask[p]], Noise([seed], 11, torch.device("cpu"))
        count, done = len(left), 0
        for until in totals(count, s.steps):
            guided = guidance_at(model, s, done / count)
            drawn = {}
            for place in left if s.order == "confidence" else left[: until - done]:
                past, rows = model.past(len(guided.rows(asked.tokens[:1]))), guided.rows(asked.tokens[row : row + 1])
                at = torch.tensor([seen], dtype=torch.long)
                model.begin(rows, guided.repeat(codes[at]), guided.repeat(at), past)
                logits = guided.combine(model.ask(guided.repeat(torch.tensor([[place]])), past))[0, 0]
                code = int(logits.argmax() if s.temperature == 0 else (logits + noise.of([place])[0, 0]).argmax())
                drawn[place] = float(logits.log_softmax(-1)[code]), code
            for place in sorted(drawn, key=lambda p: -drawn[p][0] if s.order == "confidence" else 0)[: until - done]:
                codes[place] = drawn[place][1]
                left.remove(place)
                seen.append(place)
            done = until
        found.append(codes)
    return torch.stack(found)


@pytest.mark.parametrize("mask", [ALL, HOLES], ids=["all", "holes"])
@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize("order", ORDERS)
@torch.inference_mode()
def test_drawing_is_recomputing_every_step(order, steps, mask):
    model = any_prior()
    sampling = SampleConfig(order=order, steps=steps, guidance=2.0, guidance_schedule="linear", choice_temperature=0.0)
    drawn = AnyOrderDecoder(model).codes(batch(sampling, mask))
    assert torch.equal(drawn.codes, slow(model, batch(sampling, mask)))
    assert torch.equal(drawn.codes[:, ~mask], CODES[:, ~mask]), "what is not masked stays"
    assert (drawn.log_probability[:, mask] < 0).all()
    assert (drawn.entropy[:, mask] > 0).all()
    assert drawn.entropy[:, ~mask].abs().max() == 0 if (~mask).any() else True


@pytest.mark.parametrize("order", ORDERS)
def test_a_seed_is_a_picture_in_any_batch_and_beside_any_mask(order):
    model = any_prior()
    masks = torch.stack((HOLES, ALL))
    sampling = SampleConfig(order=order, steps=5, guidance=1.5)
    asked = batch(sampling, masks)
    before = [part.clone() for part in asked[:3]]
    both = AnyOrderDecoder(model).codes(asked).codes
    alone = [AnyOrderDecoder(model).codes(batch(sampling, masks, slice(i, i + 1))).codes for i in range(2)]
    assert torch.equal(both, torch.cat(alone))
    assert all(torch.equal(a, b) for a, b in zip(asked[:3], before, strict=True)), "no decoder changes what it is given"


def test_reading_order_code_by_code_is_what_a_raster_decoder_draws():
    model, sampling = any_prior(), SampleConfig(guidance=2.0)
    plain = RasterDecoder(model).codes(batch(sampling)).codes
    assert torch.equal(AnyOrderDecoder(model).codes(batch(sampling)).codes, plain)
    same = dataclasses.replace(sampling, order="raster", guidance_schedule="linear", guidance=1.0)
    unguided = dataclasses.replace(sampling, guidance=1.0)
    raster = RasterDecoder(model).codes(batch(unguided)).codes
    assert torch.equal(AnyOrderDecoder(model).codes(batch(same)).codes, raster), "the long way draws the same"
    assert torch.equal(AnyOrderDecoder(model).codes(batch(dataclasses.replace(unguided, ahead=4))).codes, raster)


def test_a_mask_of_nothing_is_the_picture_and_steps_are_told():
    model = any_prior()
    nothing = AnyOrderDecoder(model).codes(batch(SampleConfig(steps=4), ~ALL))
    assert torch.equal(nothing.codes, CODES)
    seen = []
    AnyOrderDecoder(model).codes(
        batch(SampleConfig(steps=4), HOLES), lambda p: seen.append((p.done, int(p.mask.sum())))
    )
    assert seen == [(9 + done, 2 * (7 - done)) for done in totals(7, 4)]


@pytest.mark.parametrize(("count", "steps"), [(64, 0), (64, 16), (256, 16), (7, 4), (7, 50), (1, 3), (64, 1)])
def test_totals_grow_by_a_cosine_to_all(count, steps):
    found = totals(count, steps)
    sizes = [b - a for a, b in zip([0, *found], found, strict=False)]
    assert found[-1] == count
    assert len(found) == min(steps or count, count)
    assert min(sizes) >= 1
    assert sizes[0] <= sizes[-1]


def test_sequences_are_permutations_and_halton_spreads():
    for order in ORDERS:
        found = sequence(SampleConfig(order=order), [1, 2], 5)
        assert torch.equal(found.sort(1).values, torch.arange(25).expand(2, -1))
    assert not torch.equal(*sequence(SampleConfig(order="random"), [1, 2], 5))
    assert torch.equal(sequence(SampleConfig(steps=3), [1], 8)[0], halton(8))
    assert halton(2).tolist() == [2, 1, 0, 3], "(1/2, 1/3), (1/4, 2/3), (3/4, 1/9) again the first, (1/8, 4/9), ..."
    corners = {(int(p) // 8 // 4, int(p) % 8 // 4) for p in halton(8)[:4]}
    assert len(corners) >= 3, "the first places lie in different quarters"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 16}, "steps is 16, but this model draws in reading order, code by code"),
        ({"order": "halton"}, "order is halton, but"),
        ({"guidance_schedule": "linear"}, "guidance-schedule is linear, but"),
    ],
)
def test_a_raster_prior_refuses_steps_and_orders(changes, told):
    model = prior(MODERN)
    with pytest.raises(ConfigError, match=told):
        refuse_order(SampleConfig(**changes), model.config)
    refuse_order(SampleConfig(**changes), any_prior().config)
    refuse_order(SampleConfig(), model.config)


def test_guesses_and_steps_do_not_go_together():
    with pytest.raises(ConfigError, match="ahead is 4, which guesses"):
        refuse_order(SampleConfig(ahead=4, steps=8), any_prior().config)
