"""The prior: cached decoding equals recomputation, nothing sees the future, wirings and losses equal the obvious ones."""

import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from conftest import CLASSIC, MODERN, prior
from tessera.config import SampleConfig, TextToImageConfig, TransformerConfig
from tessera.generate import raster
from tessera.generate.rows import put, stand_at
from tessera.models.text_to_image import MaxNorm, TextToImage
from tessera.nn.cache import Nothing
from tessera.nn.geometry import Layout
from tessera.nn.loss import IGNORE, Head
from tessera.nn.stack import ACTIVATIONS, TokenShift, reversible_streams

PATTERNS = [
    ("full",),
    ("axial_row", "axial_col"),
    ("conv_like",),
    ("conv_centred", "full"),
    ("sparse",),
    ("full", "axial_row", "axial_col", "conv_like"),
]
TOKENS = torch.tensor([[3, 4, 7, 23, 24], [1, 9, 2, 8, 24]])
CODES = torch.randint(0, 11, (2, 16), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("name", "act"), [("geglu", torch.nn.functional.gelu), ("swiglu", torch.nn.functional.silu)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gates_have_the_gradient_that_autograd_finds(name, act, dtype):
    x = torch.randn(2, 3, 10, dtype=dtype, requires_grad=True)
    grad = torch.randn(2, 3, 5, dtype=dtype)
    wanted = x[..., :5] * act(x[..., 5:])
    found = ACTIVATIONS[name](x)
    with torch.no_grad():
        assert_close(ACTIVATIONS[name](x), found)
    assert_close(found, wanted)
    assert_close(*(torch.autograd.grad(y, x, grad)[0] for y in (found, wanted)))


def vary(base: TransformerConfig, **changes: object) -> TransformerConfig:
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize("base", [MODERN, CLASSIC], ids=["modern", "classic"])
@pytest.mark.parametrize("patterns", PATTERNS, ids="-".join)
@pytest.mark.parametrize(("reverse", "shift"), [(False, False), (False, True), (True, False), (True, True)])
def test_cached_decoding_is_recomputation(base, patterns, reverse, shift):
    model = prior(vary(base, patterns=patterns, reversible=reverse, shift=shift))
    past = model.past(2)
    with torch.inference_mode():
        logits = [model.prefill(TOKENS, CODES[:, :3], past)]
        logits += [model.step(CODES[:, i], past) for i in range(3, 15)]
        whole = model.image_logits(TOKENS, CODES)[:, 3:]
    assert_close(torch.stack(logits, 1), whole, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("extra", [{"positions": "axial"}, {"positions": "none"}, {"stable": True}, {"sandwich": True}, {"ff": "relu2"}, {"shared_attn": ("a", "b"), "shared_ff": ("x",)}], ids=str)  # fmt: skip
def test_cached_decoding_with_every_other_option(extra):
    test_cached_decoding_is_recomputation(vary(CLASSIC, **extra), ("full",), False, True)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("patterns", PATTERNS, ids="-".join)
@pytest.mark.parametrize("primed", [0, 4, 6])
def test_drawing_greedily_is_recomputing_every_step(guidance, patterns, primed):
    model = prior(vary(CLASSIC, patterns=patterns, reversible=True))
    given = TOKENS.clone()
    drawn = raster.codes(model, TOKENS, (0, 1), SampleConfig(temperature=0, guidance=guidance), CODES[:, :primed])
    slow = CODES[:, :primed]
    with torch.no_grad():
        while slow.shape[1] < 16:
            caption = model.image_logits(TOKENS, slow)[:, -1]
            empty = model.image_logits(model.null_caption(TOKENS), slow)[:, -1]
            slow = torch.cat((slow, (empty + guidance * (caption - empty)).argmax(-1, keepdim=True)), 1)
    assert torch.equal(drawn, slow)
    assert torch.equal(TOKENS, given), "the caller's tokens must stay as they are"


@pytest.mark.parametrize("base", [MODERN, CLASSIC], ids=["modern", "classic"])
@pytest.mark.parametrize("patterns", PATTERNS, ids="-".join)
def test_nothing_before_a_change_moves(base, patterns):
    model = prior(vary(base, patterns=patterns))
    with torch.no_grad():
        before = model.hidden(TOKENS, CODES)
        for position in (1, 4, 6, 9, 17):
            tokens, codes = TOKENS.clone(), CODES.clone()
            if position <= 5:
                tokens[:, position - 1] = 12
            else:
                codes[:, position - 6] = (codes[:, position - 6] + 1) % 11
            after = model.hidden(tokens, codes)
            assert torch.equal(after[:, :position], before[:, :position])
            assert not torch.equal(after[:, position], before[:, position])


def test_token_shift_is_its_definition():
    layout, dim = Layout(text=4, grid=3), 30  # 30 does not divide by 4: quarters of 8, 8, 8, 6
    x = torch.randn(2, layout.length, dim)
    expected = x.clone()
    for p in range(layout.length):
        if p < layout.text:
            expected[:, p, :15] = x[:, p - 1, :15] if p else 0
        else:
            r, c = divmod(p - layout.text, 3)
            expected[:, p, :8] = x[:, p - 3, :8] if r else 0
            expected[:, p, 8:16] = x[:, p - 1, 8:16] if c else 0
    assert torch.equal(TokenShift(layout, dim)(x, Nothing(layout.length)), expected)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_reversible_gradients_are_those_of_plain_autograd(dropout):
    config = vary(CLASSIC, reversible=True, attn_dropout=dropout, ff_dropout=dropout)
    model = prior(config).train()
    stack, x = model.transformer, torch.randn(2, 12, 30, requires_grad=True)
    weight = torch.randn(2, 12, 30)

    def gradients(forward):
        model.zero_grad()
        x.grad = None
        torch.manual_seed(3)
        out = forward()
        (out * weight).sum().backward()
        return out.detach(), x.grad.clone(), {n: p.grad.clone() for n, p in stack.named_parameters()}

    def obvious():
        y1, y2 = reversible_streams(stack.pairs, x, Nothing(12))
        return (y1 + y2) / 2

    fast, slow = gradients(lambda: stack(x)), gradients(obvious)
    assert_close(fast[0], slow[0])
    assert_close(fast[1], slow[1], atol=1e-4, rtol=1e-4)
    for name in slow[2]:
        assert_close(fast[2][name], slow[2][name], atol=1e-3, rtol=1e-3, msg=name)


def test_reversible_gradients_exist_in_eval_mode():
    model = prior(vary(CLASSIC, reversible=True)).eval()
    model(TOKENS, CODES).total.backward()
    assert all(p.grad is not None for p in model.transformer.parameters())


def test_reversible_memory_is_flat_in_depth():
    """Bytes kept for the backward pass by a deep stack are those of a shallow one."""

    def kept(depth):
        model = prior(vary(CLASSIC, reversible=True, depth=depth)).train()
        seen = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: seen.setdefault(t.data_ptr(), t) is None or t, lambda t: t
        ):
            model.transformer(torch.randn(2, 12, 30, requires_grad=True))
        return sum(t.numel() for t in seen.values())

    assert kept(8) == kept(1)


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_chunked_loss_is_cross_entropy(rows):
    torch.manual_seed(0)
    head = Head(8, 13, bias=True)
    head.rows = rows
    hidden, targets = torch.randn(3, 7, 8, requires_grad=True), torch.randint(0, 13, (3, 7))
    targets[0, :4] = IGNORE
    rows_of = zip(head.logits(hidden), targets, strict=True)
    obvious = torch.stack([torch.nn.functional.cross_entropy(h, t, ignore_index=IGNORE) for h, t in rows_of]).mean()
    leaves = [hidden, head.weight, head.bias]
    expected = torch.autograd.grad(obvious * 3, leaves)
    loss = head(hidden, targets)
    assert_close(loss, obvious)
    for found, wanted in zip(torch.autograd.grad(loss * 3, leaves), expected, strict=True):
        assert_close(found, wanted)
    with torch.no_grad():
        assert_close(head(hidden, targets), obvious)


def test_loss_is_that_of_the_joint_vocabulary():
    """Two heads give what DALLE-pytorch's masked joint logits give."""
    model = prior(CLASSIC, learn_padding=True)
    loss = model(TOKENS, CODES)
    with torch.no_grad():
        hidden = model.hidden(TOKENS, CODES)
        joint = torch.cat((model.text_head.logits(hidden), model.image_head.logits(hidden)), -1)
        vocab = 25
        joint[:, :5, vocab:] = -torch.inf
        joint[:, 5:, :vocab] = -torch.inf
        text = torch.nn.functional.cross_entropy(joint[:, :5].flatten(0, 1), TOKENS.flatten())
        image = torch.nn.functional.cross_entropy(joint[:, 5:].flatten(0, 1), (CODES + vocab).flatten())
    assert_close(loss.text, text)
    assert_close(loss.image, image)
    assert_close(loss.total, (text + 7 * image) / 8)


def test_padding_counts_only_where_it_is_learned():
    silent, learned = prior(MODERN), prior(MODERN, learn_padding=True)
    tokens = TOKENS.clone()
    tokens[:, 2:] = silent.null_caption(tokens)[:, 2:]
    assert silent._text_targets(tokens)[0].tolist() == [*tokens[0, :3].tolist(), IGNORE, IGNORE]  # the end is learned
    assert torch.equal(learned._text_targets(tokens), tokens)


def test_forgetting_leaves_the_batch_alone():
    model = prior(MODERN)
    before = TOKENS.clone()
    forgotten = model.drop_captions(TOKENS, torch.tensor([True, False]))
    assert torch.equal(TOKENS, before)
    assert forgotten.tolist() == [[20, 21, 22, 23, 24], TOKENS[1].tolist()]


def test_tied_embeddings_are_the_heads():
    model = TextToImage(
        TextToImageConfig(text_vocab=20, text_len=5, image_vocab=11, grid=4, tied=True, transformer=MODERN)
    )
    assert model.text_embedding.weight is model.text_head.weight
    assert model.image_embedding.weight is model.image_head.weight


def test_shared_ids_share_weights_but_not_norms():
    model = prior(vary(CLASSIC, depth=4, shared_attn=("a", "b"), shared_ff=("x",)))
    pairs = model.transformer.pairs
    assert pairs[0][0].fn is pairs[2][0].fn
    assert pairs[0][0].fn is not pairs[1][0].fn
    assert len({pair[1].fn for pair in pairs}) == 1
    assert pairs[0][0].norm is not pairs[2][0].norm


def test_stable_divides_by_the_largest_channel():
    x = torch.randn(3, 8)
    assert_close(MaxNorm()(x).amax(-1), torch.ones(3))
    plain, stable = prior(CLASSIC), prior(vary(CLASSIC, stable=True))
    damped = torch.autograd.grad(stable.embed(TOKENS, CODES).sum(), stable.text_embedding.weight)[0]
    whole = torch.autograd.grad(plain.embed(TOKENS, CODES).sum(), plain.text_embedding.weight)[0]
    assert_close(damped, whole * 0.1)


def test_first_loss_of_the_notebook():
    """9.40: (ln 49664 + 7 ln 8192) / 8 + 1/6, as the 2021 notebook printed (9.397)."""
    from tessera.config.presets import preset

    config = dataclasses.replace(preset("t2i-dalle1-256").model, text_vocab=49408, image_vocab=8192, grid=32)
    torch.manual_seed(0)
    model = TextToImage(config)
    tokens, codes = torch.randint(1, 49408, (1, 256)), torch.randint(0, 8192, (1, 1024))
    with torch.no_grad():
        total = model(tokens, codes).total.item()
    assert total == pytest.approx((math.log(49664) + 7 * math.log(8192)) / 8 + 1 / 6, abs=0.03)
    assert total == pytest.approx(9.40, abs=0.03)


# Rows that stand at positions of their own, which a server's batch and priors of other orders need.


@pytest.mark.parametrize("base", [MODERN, CLASSIC, vary(MODERN, positions="axial")], ids=["modern", "classic", "axial"])
@pytest.mark.parametrize("patterns", PATTERNS, ids="-".join)
@pytest.mark.parametrize(("reverse", "shift", "tied"), [(False, False, True), (False, True, False), (True, True, True)])
def test_a_batch_whose_rows_stand_at_different_positions_decodes_like_each_row_alone(
    base, patterns, reverse, shift, tied
):
    model = prior(vary(base, patterns=patterns, reversible=reverse, shift=shift), tied=tied)
    tokens, codes = TOKENS[[0, 1, 0]], CODES[[0, 1, 1]]
    given, steps = [0, 7, 3], 8
    with torch.inference_mode():
        past, wanted = model.past(3), []
        for i, n in enumerate(given):
            alone = model.past(1)
            model.prefill(tokens[i : i + 1], codes[i : i + 1, :n], alone)
            put(past, i, alone)
            wanted.append(torch.cat([model.step(codes[i : i + 1, n + k], alone) for k in range(steps)]))
        found = []
        for k in range(steps):
            at = torch.tensor(given)[:, None] + k
            stand_at(past, at + model.layout.text)
            found.append(model.decode(codes.gather(1, at), past)[:, 0])
    assert_close(torch.stack(found, 1), torch.stack(wanted), atol=1e-5, rtol=1e-5)


def test_a_row_is_taken_over_by_another_while_the_rest_of_the_batch_goes_on():
    """Rows finish and begin in the middle of a batch; what the row before left behind is not seen, were it infinite."""
    model = prior(vary(CLASSIC, patterns=("full", "axial_col")))
    with torch.inference_mode():
        past, other = model.past(2), model.past(1)
        for slot in past.slots:
            for kept in slot.kept:
                kept[1].fill_(math.nan)
        begun = model.past(1)
        model.prefill(TOKENS[:1], CODES[:1, :9], begun)
        put(past, 0, begun)
        addresses = [kept.data_ptr() for slot in past.slots for kept in slot.kept]
        model.prefill(TOKENS[1:], CODES[1:, :2], other)
        put(past, 1, other)
        assert [kept.data_ptr() for slot in past.slots for kept in slot.kept] == addresses
        for k in range(3):
            stand_at(past, torch.tensor([[9 + k], [2 + k]]) + model.layout.text)
            found = model.decode(torch.stack((CODES[0, 9 + k], CODES[1, 2 + k]))[:, None], past)[:, 0]
    whole = model.image_logits(TOKENS, CODES)
    assert_close(found, torch.stack((whole[0, 12], whole[1, 5])), atol=2e-5, rtol=1e-5)


def test_rows_apart_may_read_several_codes_at_once():
    model = prior(vary(CLASSIC, patterns=("conv_like", "full")))
    with torch.inference_mode():
        past = model.past(2)
        for i, n in enumerate((5, 1)):
            alone = model.past(1)
            model.prefill(TOKENS[i : i + 1], CODES[i : i + 1, :n], alone)
            put(past, i, alone)
        at = torch.tensor([[5], [1]]) + torch.arange(4)
        stand_at(past, at + model.layout.text)
        found = model.decode(CODES.gather(1, at), past)
        whole = model.image_logits(TOKENS, CODES)
    assert_close(found, torch.stack((whole[0, 6:10], whole[1, 2:6])), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["rotary", "rotary_dalle1"])
def test_places_may_follow_another_order_than_rows(positions):
    """Any order: each row of the batch is a permutation of the places. All at once, each one alone and step by step
    through a cache are the same numbers, and they are not those of raster order."""
    model = prior(vary(MODERN, positions=positions))
    stack, x = model.transformer, torch.randn(2, model.layout.length, 32)
    places = torch.stack([torch.randperm(model.layout.length) for _ in x])
    with torch.inference_mode():
        whole = stack(x, Nothing(x.shape[1], places))
        for i, own in enumerate(places):
            assert_close(stack(x[i : i + 1], Nothing(x.shape[1], own)), whole[i : i + 1], atol=1e-5, rtol=1e-5)
        past = stack.past(2, x.device)
        past.advance(6, places[:, :6])
        steps = [stack(x[:, :6], past)]
        for t in range(6, x.shape[1]):
            past.advance(1, places[:, t : t + 1])
            steps.append(stack(x[:, t : t + 1], past))
    assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(stack(x), whole, atol=1e-2)


def test_joint_logits_never_exist():
    """Nothing that a step keeps is as large as the logits of all positions, even over one of the two vocabularies."""
    torch.manual_seed(0)
    model = TextToImage(
        TextToImageConfig(text_vocab=30_000, text_len=20, image_vocab=20_000, grid=8, transformer=MODERN)
    )
    tokens, codes = torch.randint(1, 30_000, (16, 20)), torch.randint(0, 20_000, (16, 64))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        model(tokens, codes).total.backward()
    assert max(kept) < 16 * 64 * 20_000 / 10


@pytest.mark.parametrize(
    "change", [{"patterns": ("full", "conv_like")}, {"patterns": ("sparse",)}, {"shift": True}], ids=str
)
def test_patterns_and_the_token_shift_refuse_another_order(change):
    """They are defined on the grid in raster order: another order would draw something else in silence."""
    stack = prior(vary(MODERN, **change)).transformer
    x, places = torch.randn(1, stack.layout.length, 32), torch.randperm(stack.layout.length)
    with torch.inference_mode():
        with pytest.raises(AssertionError, match="need raster order"):
            stack(x, Nothing(x.shape[1], places))
        past = stack.past(1, x.device)
        past.advance(6, places[None, :6])
        with pytest.raises(AssertionError, match="need raster order"):
            stack(x[:, :6], past)
        stand_at(past, torch.arange(6)[None], places[None, :6])
        with pytest.raises(AssertionError, match="need raster order"):
            stack(x[:, :6], past)
        past.rewind(0, 6)
        assert_close(stack(x[:, :6], past), stack(x)[:, :6], atol=1e-5, rtol=1e-5)
