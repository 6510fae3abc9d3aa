"""Drawing: filters keep what they should, a seed is a picture in any batch, frequencies follow the probabilities."""

import gc
import weakref
from collections.abc import Generator

import pytest
import torch

from conftest import CLASSIC, MODERN, prior
from tessera.config import SampleConfig
from tessera.errors import ConfigError
from tessera.generate import choose as sample
from tessera.generate import raster
from tessera.generate.certainty import Certainty, Unmeasured
from tessera.generate.decoder import Decoder, DrawingBatch, Drawn, Progress
from tessera.generate.given import Given
from tessera.generate.weights import prepare
from tessera.models.text_to_image import TextToImage

LOGITS = torch.tensor([[0.1, 3.0, 2.0, -1.0, 2.5], [5.0, 0.3, 0.0, -0.2, 0.1]])


def test_top_k_counts_exactly():
    kept = sample.top_k(LOGITS, 2).isfinite()
    assert kept.tolist() == [[False, True, False, False, True], [True, True, False, False, False]]


def test_top_k_below_one_is_a_share_of_the_image_codes():
    keep = sample.filters(SampleConfig(top_k=0.4), 5)[-1]
    assert keep(LOGITS).isfinite().sum(-1).tolist() == [2, 2]


def test_what_is_not_asked_for_filters_nothing():
    assert sample.filters(SampleConfig(), 5) == []
    (warmer,) = sample.filters(SampleConfig(temperature=2.0), 5)
    assert torch.equal(warmer(LOGITS), LOGITS / 2)


def test_a_temperature_that_is_a_whole_number_of_any_size_divides():
    (cool,) = sample.filters(SampleConfig(temperature=2**64), 3)
    assert torch.equal(cool(torch.tensor([2.0**64, 0.0, -(2.0**65)])), torch.tensor([1.0, 0.0, -2.0]))


def test_top_p_is_the_smallest_set():
    share = LOGITS.softmax(-1)
    kept = sample.top_p(LOGITS, 0.8).isfinite()
    for row, ok in zip(share, kept, strict=True):
        assert row[ok].sum() >= 0.8
        assert row[ok].sum() - row[ok].min() < 0.8
        assert row[ok].min() >= row[~ok].max()


def test_draws_follow_the_probabilities():
    noise = sample.Noise([3], 5, torch.device("cpu")).at(0, 200_000)[0]
    drawn = sample.gumbel_max(LOGITS[:1].expand(len(noise), -1), noise)
    share = torch.bincount(drawn, minlength=5) / len(noise)
    torch.testing.assert_close(share, LOGITS[0].softmax(-1), atol=3e-3, rtol=0)


def test_a_filtered_code_is_never_drawn():
    noise = sample.Noise([0, 1], 5, torch.device("cpu")).at(0, 1000)
    drawn = sample.gumbel_max(sample.top_k(LOGITS, 2)[:, None].expand(-1, 1000, -1), noise)
    assert drawn[0].unique().tolist() == [1, 4]
    assert set(drawn[1].tolist()) <= {0, 1}


def test_the_only_code_that_is_kept_is_drawn_whatever_the_noise(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.zeros(*shape))
    noise = sample.Noise([0], 5, torch.device("cpu")).at(0, 1)[:, 0]
    assert sample.gumbel_max(sample.top_k(LOGITS[:1], 1), noise).tolist() == [1]


def test_noise_is_the_same_however_it_is_asked_for():
    cpu = torch.device("cpu")
    whole = sample.Noise([4, 5], 7, cpu).at(0, 200)
    apart = sample.Noise([5], 7, cpu)
    assert all(torch.equal(apart.at(i, 9), whole[1:, i : i + 9]) for i in range(3, 191, 4))
    assert whole.flatten(1).isfinite().all()
    assert abs(float(whole.mean()) - 0.5772) < 0.1


@pytest.mark.parametrize("config", [MODERN, CLASSIC], ids=["modern", "dalle1"])
@pytest.mark.parametrize("ahead", [2, 5, 64])
@pytest.mark.parametrize("sampling", [{}, {"guidance": 2.0, "top_k": 4}, {"temperature": 0.0}], ids=str)
def test_guessing_ahead_changes_no_picture(config, ahead, sampling):
    model, tokens, steps = prior(config), torch.tensor([[3, 4, 7, 23, 24], [5, 21, 22, 23, 24]]), []
    one, many = SampleConfig(**sampling), SampleConfig(ahead=ahead, **sampling)
    for batch, prime in ((1, 0), (2, 0), (2, 3), (1, 14), (1, 15)):
        begun = torch.arange(prime).expand(batch, -1) % 11
        wanted = raster.codes(model, tokens[:batch], [5, 6][:batch], one, begun)
        steps.clear()
        found = raster.codes(
            model, tokens[:batch], [5, 6][:batch], many, begun, lambda p: steps.append(p.codes[:, : p.done].clone())
        )
        assert torch.equal(found, wanted)
        assert all(torch.equal(drawn, wanted[:, : drawn.shape[1]]) for drawn in steps), "what is shown is final"


def test_what_rows_have_in_common_is_read_once(monkeypatch):
    model, prefill, read = prior(CLASSIC), TextToImage.prefill, []
    monkeypatch.setattr(TextToImage, "prefill", lambda self, t, c, p: read.append(len(t)) or prefill(self, t, c, p))
    tokens, config = torch.tensor([[3, 4, 7, 23, 24], [5, 21, 22, 23, 24]])[[0, 1, 0, 0]], SampleConfig(guidance=2.0)
    together = raster.codes(model, tokens, [1, 2, 3, 4], config)
    assert read == [3], "two captions, and none"
    alone = [raster.codes(model, tokens[i : i + 1], [i + 1], config) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))
    prime = torch.tensor([[1], [1], [1], [2]])
    read.clear()
    assert torch.equal(raster.codes(model, tokens, [1, 2, 3, 4], config, prime)[:, :1], prime)
    assert read == [5]


def test_right_guesses_save_steps():
    """Greedy pictures of one colour: each guess is the code before it."""
    model, steps = prior(MODERN), []
    model.image_head.weight.data.zero_()
    raster.codes(
        model,
        torch.tensor([[3, 4, 7, 23, 24]]),
        [0],
        SampleConfig(temperature=0, ahead=5),
        on_step=lambda p: steps.append(p.done),
    )
    assert steps == [1, 6, 11, 16]


def test_drawing_reads_each_position_once():
    model, read = prior(MODERN), []
    model.transformer.register_forward_hook(lambda module, args, out: read.append(out.shape[1]))
    raster.codes(model, torch.randint(1, 20, (1, 5)), [0], SampleConfig())
    assert read == [6, *[1] * 15]


def test_a_seed_is_the_same_picture_alone_and_in_any_batch():
    model = prior(MODERN)
    tokens = torch.tensor([[3, 4, 7, 23, 24]])
    config = SampleConfig(guidance=2.0, top_p=0.9)
    alone = [raster.codes(model, tokens, [seed], config)[0] for seed in (7, 8, 9)]
    together = raster.codes(model, tokens.expand(3, -1), [9, 7, 8], config)
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
        steps = [fast.prefill(tokens, codes[:, :0], past), *(fast.step(codes[:, i], past) for i in range(15))]
        assert (torch.stack(steps, 1) - wanted).abs().max() < near * wanted.abs().max()


def test_other_weights_are_refused():
    with pytest.raises(ConfigError, match="int4"):
        prepare(prior(MODERN), "int4")


def test_each_step_shows_the_codes_so_far():
    model, tokens, seen = prior(MODERN), torch.tensor([[3, 4, 7, 23, 24]]), []
    kept = lambda p: seen.append(p.codes[:, : p.done].clone())
    drawn = raster.codes(model, tokens, [1], SampleConfig(), tokens[:, :2], kept)
    assert [len(s[0]) for s in seen] == list(range(3, 17))
    assert all(torch.equal(s, drawn[:, : s.shape[1]]) for s in seen)


@pytest.mark.parametrize("bad", [{"temperature": -1.0}, {"top_k": 2.5}, {"top_p": 0.0}, {"ahead": 0}])
def test_impossible_sampling_is_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad)).replace("_", "-")):
        SampleConfig(**bad).check()


def test_nucleus_sampling_counts_each_position_for_itself():
    several = LOGITS[:, None].expand(-1, 3, -1)  # as several positions are drawn at once
    assert torch.equal(sample.top_p(several, 0.8), sample.top_p(LOGITS, 0.8)[:, None].expand(-1, 3, -1))


# The decoder: what is given, what is drawn, how sure the model was.


TOKENS = torch.tensor([[3, 4, 7, 23, 24], [5, 21, 22, 23, 24]])


@pytest.mark.parametrize("order", ["backwards", "shuffled"])
def test_noise_of_a_place_is_the_same_in_any_order(order, monkeypatch):
    """Also where blocks that were forgotten are asked for again; the numbers are those of a generator that runs on."""
    cpu, source = torch.device("cpu"), torch.Generator().manual_seed(5)
    running = torch.rand(320, 7, generator=source).clamp(min=2**-25).log().neg().log().neg()
    monkeypatch.setattr(sample.Noise, "HELD", 1)
    noise = sample.Noise([4, 5], 7, cpu)
    places = torch.randperm(320, generator=source).tolist() if order == "shuffled" else list(range(320))[::-1]
    assert torch.equal(torch.stack([noise.of([p])[1, 0] for p in places]), running[places])
    assert torch.equal(noise.of(places)[1], running[places])
    assert torch.equal(noise.at(40, 60)[1], running[40:100])
    assert torch.equal(noise.at(3, 2)[1], running[3:5]), "and back again"


def test_noise_in_reading_order_holds_a_bounded_number_of_places():
    noise, most = sample.Noise([0, 1], 512, torch.device("cpu")), 0
    for place in range(0, 8192, 16):
        noise.at(place, 1)
        most = max(most, sum(block.numel() for block in noise.blocks.values()))
    assert most <= sample.Noise.HELD


PLAIN = SampleConfig()


def batch(given: int = 0, sampling: SampleConfig = PLAIN, mask: torch.Tensor | None = None) -> DrawingBatch:
    """Two pictures of which the first `given` codes are there."""
    asked = DrawingBatch(TOKENS, *Given.first(torch.arange(2 * given).view(2, given) % 11, 16), [5, 6], sampling)
    return asked if mask is None else asked._replace(mask=mask)


@pytest.mark.parametrize("ahead", [1, 5])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("given", [0, 5, 14])
def test_what_was_drawn_comes_with_its_log_probability_and_entropy(given, guidance, ahead):
    model, config = prior(CLASSIC), SampleConfig(guidance=guidance, ahead=ahead, temperature=0.7, top_k=3)
    asked = batch(given, config)
    before = [u.clone() for u in asked[:3]]
    drawn = raster.RasterDecoder(model, certainty=Certainty).codes(asked)
    assert all(torch.equal(a, b) for a, b in zip(before, asked[:3], strict=True))
    assert torch.equal(drawn.codes, raster.codes(model, TOKENS, [5, 6], config, asked.known[:, :given]))
    with torch.no_grad():
        caption = model.image_logits(TOKENS, drawn.codes)
        null = model.image_logits(model.null_caption(TOKENS), drawn.codes)
    predicted = torch.distributions.Categorical(logits=null + guidance * (caption - null))
    torch.testing.assert_close(
        drawn.log_probability, predicted.log_prob(drawn.codes) * asked.mask, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(drawn.entropy, predicted.entropy() * asked.mask, atol=1e-4, rtol=1e-4)


def test_nobody_pays_for_certainty_who_does_not_ask(monkeypatch):
    """It is nan then, and no log-softmax is taken; whoever asks takes one a step."""
    taken, log_softmax = [], torch.Tensor.log_softmax
    monkeypatch.setattr(torch.Tensor, "log_softmax", lambda self, dim: taken.append(1) or log_softmax(self, dim))
    drawn = raster.RasterDecoder(prior(MODERN)).codes(batch(5))
    assert drawn.log_probability.shape == drawn.entropy.shape == drawn.codes.shape
    assert torch.stack(drawn[1:]).isnan().all()
    assert not taken
    measured = raster.RasterDecoder(prior(MODERN), certainty=Certainty).codes(batch(5))
    assert torch.equal(measured.codes, drawn.codes)
    assert len(taken) == 11


def test_a_mask_for_each_picture_may_say_the_same():
    decoder, asked = raster.RasterDecoder(prior(MODERN)), batch(3)
    each = decoder.codes(asked._replace(mask=asked.mask.expand(2, -1)))
    assert torch.equal(decoder.codes(asked).codes, each.codes)


@pytest.mark.parametrize("wrong", ["hole", "end", "pictures differ"])
def test_reading_order_refuses_a_mask_that_is_not_everything_after_a_first_part(wrong):
    mask = torch.ones(2, 16, dtype=torch.bool)
    mask[0 if wrong == "pictures differ" else slice(None), {"hole": 7, "end": 15}.get(wrong, 0)] = False
    with pytest.raises(ConfigError, match=r"reading order: it keeps whole rows at the top.*tessera train any-xs-64"):
        raster.RasterDecoder(prior(MODERN)).codes(batch(mask=mask))


@pytest.mark.parametrize("ahead", [1, 5])
def test_each_step_says_what_is_still_to_be_drawn(ahead):
    seen, asked = [], batch(3, SampleConfig(ahead=ahead))
    decoder = raster.RasterDecoder(prior(MODERN))
    decoder.codes(asked, lambda p: seen.append((p.done, p.mask.tolist())))
    assert all(mask == [False] * n + [True] * (16 - n) for n, mask in seen)
    done = [n for n, _ in seen]
    assert done == (list(range(4, 17)) if ahead == 1 else sorted(set(done)))
    assert done[-1] == 16
    full = decoder.codes(asked._replace(mask=torch.zeros(16, dtype=torch.bool)))
    assert torch.equal(full.codes, asked.known)


def test_whoever_watches_a_drawing_is_left_as_they_were():
    """Between steps neither the mode of inference nor the kind of products is changed, nor after closing."""
    products = torch.backends.mkldnn.matmul
    before, products.fp32_precision = products.fp32_precision, "ieee"
    try:
        steps = raster.RasterDecoder(prior(MODERN)).steps(batch())
        for _ in range(3):
            next(steps)
            assert not torch.is_inference_mode_enabled()
            assert products.fp32_precision == "ieee"
        steps.close()
        assert not torch.is_inference_mode_enabled()
        assert products.fp32_precision == "ieee"
    finally:
        products.fp32_precision = before


def test_a_decoder_that_is_closed_frees_its_past(monkeypatch):
    model, made, past = prior(MODERN), [], TextToImage.past
    monkeypatch.setattr(TextToImage, "past", lambda *a, **k: (p := past(*a, **k), made.append(weakref.ref(p)))[0])
    steps = raster.RasterDecoder(model).steps(batch())
    gc.disable()
    try:
        next(steps)
        next(steps)
        assert made[0]() is not None
        steps.close()
        assert made[0]() is None
    finally:
        gc.enable()


class AnyOrder(Decoder):
    """A toy of the decoders to come: it takes any mask, and predicts each place without looking at the others."""

    def __init__(self, logits: torch.Tensor, order: list[int]):
        self.logits, self.order = logits, order

    def steps(self, batch: DrawingBatch) -> Generator[Progress, None, Drawn]:
        codes, mask = batch.known.clone(), batch.mask.expand(batch.known.shape).clone()
        noise, certainty = sample.Noise(batch.seeds, self.logits.shape[1], codes.device), Unmeasured(codes)
        for done, place in enumerate(self.order, 1):
            found = sample.gumbel_max(self.logits[place].expand(len(codes), -1), noise.of([place])[:, 0])
            codes[:, place] = torch.where(mask[:, place], found, codes[:, place])
            mask[:, place] = False
            yield Progress(codes, mask, done)
        return Drawn(codes, certainty.log_probability, certainty.entropy)


@pytest.mark.parametrize("hidden", ["all", "a hole", "pictures differ"])
def test_a_decoder_of_any_order_draws_the_same_picture_in_every_order(hidden):
    """What noise by place and a mask are for: a seed is a picture, and what is given stays, whatever is drawn first."""
    logits, mask = torch.randn(16, 11), torch.ones(2, 16, dtype=torch.bool)
    if hidden != "all":
        mask[slice(None) if hidden == "a hole" else 0, 3:9] = False
    asked = batch(mask=mask)._replace(known=torch.full((2, 16), 10))
    orders = [list(range(16)), list(range(16))[::-1], torch.randperm(16).tolist()]
    first, *others = [AnyOrder(logits, order).codes(asked).codes for order in orders]
    assert all(torch.equal(other, first) for other in others)
    assert torch.equal(first.masked_fill(mask, 10), asked.known)
    alone = asked._replace(**{name: getattr(asked, name)[1:] for name in ("tokens", "known", "mask", "seeds")})
    assert torch.equal(AnyOrder(logits, orders[2]).codes(alone).codes, first[1:])
    assert isinstance(AnyOrder(logits, []), Decoder)
