"""Quantizers: one protocol, whoever wrote them; codes and vectors are inverse, and gradients reach the encoder."""

import dataclasses
import sys

import pytest
import torch
from torch.testing import assert_close

from conftest import TINY_DVAE
from tessera.config import EMA, FSQ, LFQ, QUANTIZERS, Gumbel, Lookup, Quantizer, SimVQ, TrainConfig, kind_of
from tessera.errors import ConfigError
from tessera.models import quantizers, saved
from tessera.models.dvae import DiscreteVAE
from tessera.nn.quantize.fsq import FiniteScalar
from tessera.nn.quantize.gumbel import divergence, reinmax
from tessera.nn.quantize.lookup import Nearest
from tessera.nn.quantize.protocol import used
from tessera.train import plan

OWN = [
    FSQ(levels=(8, 5, 4)),
    FSQ(levels=(8, 5, 4), bound="sigmoid"),
    Gumbel(codes=20, code_dim=6),
    Lookup(codes=20, code_dim=6),
]
THEIRS = [
    LFQ(bits=5),
    SimVQ(codes=20, code_dim=6),
    SimVQ(codes=20, code_dim=6, rotation=False),
    EMA(codes=20, code_dim=6),
    EMA(codes=20, code_dim=6, rotation=False),
]
by_kind = {"ids": kind_of}


def made(config: Quantizer):
    if config in THEIRS:
        pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(0)
    return quantizers.quantizer(config)


def test_settings_and_modules_have_the_same_names():
    assert QUANTIZERS.keys() == quantizers.QUANTIZERS.keys()
    assert {kind_of(c) for c in OWN + THEIRS} == QUANTIZERS.keys(), "every quantizer is tested here"


@pytest.mark.parametrize("config", OWN + THEIRS, **by_kind)
def test_every_quantizer_keeps_the_protocol(config):
    quantize = made(config)
    z = (torch.randn(2, quantize.width_in, 3, 5) * 2).requires_grad_()
    found = quantize(z, 1.0)
    assert found.vectors.shape == (2, quantize.width_out, 3, 5)
    assert (found.codes.shape, found.codes.dtype) == ((2, 15), torch.long)
    assert 0 <= found.codes.min() <= found.codes.max() < config.vocab
    assert found.loss.shape == found.usage.shape == ()
    assert found.loss.isfinite()
    assert found.usage == found.codes.unique().numel()
    (found.vectors.square().sum() + found.loss).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("config", OWN + THEIRS, **by_kind)
def test_the_codes_of_a_vector_are_its_own(config):
    """encode(decode(codes)) = codes, for every code; of Gumbel, which reads logits, vectors alone are asked."""
    quantize = made(config).eval()
    codes = torch.arange(config.vocab)[None]
    vectors = quantize.vectors(codes)
    assert vectors.shape == (1, config.vocab, quantize.width_out)
    assert vectors[0].unique(dim=0).shape[0] == config.vocab
    if isinstance(config, Gumbel):
        return
    if isinstance(config, FSQ):  # its vectors are scaled to -1 ... 1, and the encoder's output goes through tanh
        bounded = vectors.transpose(1, 2) * (quantize.levels[:, 0] // 2)
        back = ((bounded[..., None] + quantize.offset) / quantize.reach).clamp(-0.999999, 0.999999).atanh()
        z = back - (quantize.offset / quantize.reach).atanh()
    else:
        z = vectors.transpose(1, 2)[..., None]
    assert torch.equal(quantize.codes(z), codes)


@pytest.mark.parametrize("config", [c for c in OWN + THEIRS if not isinstance(c, Gumbel)], **by_kind)
def test_training_sees_the_vectors_of_its_codes(config):
    quantize = made(config)
    z = torch.randn(2, quantize.width_in, 3, 5) * 2
    before = {name: value.clone() for name, value in quantize.state_dict().items()}
    found = quantize(z, 1.0)
    quantize.load_state_dict(before)  # moving averages have moved since
    assert torch.equal(quantize.codes(z), found.codes)
    assert_close(quantize.vectors(found.codes).transpose(1, 2), found.vectors.detach().flatten(2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", OWN + THEIRS, **by_kind)
def test_looking_moves_nothing(config):
    quantize = made(config)
    before = {name: value.clone() for name, value in quantize.state_dict().items()}
    quantize.codes(torch.randn(2, quantize.width_in, 3, 5))
    for name, value in quantize.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("config", OWN + THEIRS, **by_kind)
def test_an_image_tokenizer_of_every_kind_is_planned_trained_and_saved(config, tmp_path):
    made(config)  # skips where the package is missing
    settings = dataclasses.replace(TINY_DVAE, quantizer=config)
    run = TrainConfig(model=settings)
    assert plan.predict(run, 4).total > 0
    torch.manual_seed(0)
    model = DiscreteVAE(settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    pixels, losses = torch.rand(8, 3, 1, 1).expand(-1, -1, 16, 16), []
    for _ in range(60):
        loss = model(pixels, 0.5)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.reconstruction.item())
    assert losses[-1] < 0.85 * losses[0], losses
    saved.write(tmp_path, model)
    again = saved.read(tmp_path)
    assert again.config == settings
    assert torch.equal(again.encode(pixels), model.encode(pixels))
    assert torch.equal(again.decode(model.encode(pixels)), model.decode(model.encode(pixels)))


@pytest.mark.parametrize("config", [c for c in THEIRS if isinstance(c, EMA)], ids=["rotated", "straight"])
def test_moving_averages_survive_a_spoiled_step(config):
    quantize = made(config)
    z = torch.randn(2, 6, 3, 5)
    z[0, 0, 0, 0] = torch.nan
    assert not quantize(z, 1.0).loss.isfinite()
    assert all(value.isfinite().all() for value in quantize.state_dict().values())


@pytest.mark.parametrize("config", [LFQ(), SimVQ(), EMA()], **by_kind)
def test_a_missing_package_is_named_with_the_line_that_installs_it(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    with pytest.raises(ConfigError, match=rf"{kind_of(config)} needs .*pip install 'tessera-t2i\[quantizers\]'"):
        quantizers.quantizer(config)


def test_usage_counts_different_codes():
    assert used(torch.tensor([[3, 3, 0], [0, 3, 5]]), 7) == 3
    assert used(torch.zeros(2, 9, dtype=torch.long), 7) == 1


# The house's own.


def test_the_bound_of_ifsq_is_a_wider_tanh():
    tanh, sigmoid = (FiniteScalar(FSQ(levels=(7, 5), bound=bound)) for bound in ("tanh", "sigmoid"))
    z = torch.linspace(-3, 3, 101).expand(1, 2, 1, 101)
    assert_close(sigmoid._bound(z), (2 * torch.sigmoid(1.6 * z) - 1) * sigmoid.reach)
    assert torch.equal(tanh._bound(z), z.tanh() * tanh.reach), "the default is what it was"


def test_finite_scalar_stays_in_its_range():
    quantize = FiniteScalar(FSQ(levels=(8, 5, 4)))
    z = torch.randn(2, 3, 5, 5) * 200
    assert quantize.codes(z).min() >= 0
    assert quantize.codes(z).max() < 160


def test_finite_scalar_passes_every_gradient():
    z = torch.randn(2, 3, 5, 5, requires_grad=True)
    FiniteScalar(FSQ(levels=(8, 5, 4)))(z, 1.0).vectors.sum().backward()
    assert z.grad is not None
    assert z.grad.abs().min() > 0


def test_lookup_finds_the_nearest_vector_and_moves_it_towards_what_chose_it():
    torch.manual_seed(0)
    quantize = Nearest(Lookup(codes=7, code_dim=4, commitment=0.25))
    torch.nn.init.normal_(quantize.embedding.weight)
    z = torch.randn(2, 4, 3, 3, requires_grad=True)
    found, table_ = quantize(z, 1.0), quantize.embedding.weight
    flat = z.flatten(2).transpose(1, 2)
    assert torch.equal(found.codes, (flat[:, :, None] - table_).norm(dim=-1).argmin(-1))
    found.loss.backward()
    chosen = table_[found.codes]
    wanted = torch.zeros_like(table_).index_add_(
        0, found.codes.flatten(), (2 * (chosen - flat) / flat.numel()).flatten(0, 1)
    )
    assert_close(table_.grad, wanted.detach())
    assert_close(z.grad.flatten(2).transpose(1, 2), (0.25 * 2 * (flat - chosen) / flat.numel()).detach())


def test_kl_is_a_batch_mean():
    """DALLE-pytorch's grew with the batch."""
    logits = torch.randn(1, 9, 4, 4)
    assert_close(divergence(logits), divergence(logits.expand(8, -1, -1, -1)))
    q = logits.softmax(1)
    assert_close(divergence(logits), (q * (q * 9).log()).sum())
    assert divergence(torch.zeros(2, 9, 4, 4)).abs() < 1e-5


def test_reinmax_changes_only_the_gradient():
    torch.manual_seed(0)
    logits = torch.randn(2, 9, 4, 4, requires_grad=True)
    choice = torch.nn.functional.gumbel_softmax(logits, 0.7, hard=True, dim=1)
    better = reinmax(logits, choice, 0.7)
    assert_close(better, choice.detach(), atol=1e-6, rtol=0)
    weight = torch.randn_like(logits)
    plain = torch.autograd.grad((choice * weight).sum(), logits, retain_graph=True)[0]
    second = torch.autograd.grad((better * weight).sum(), logits)[0]
    assert (plain - second).abs().max() > 1e-3


def test_reinmax_is_exact_for_two_codes_on_average():
    """E[gradient] of ReinMax is that of E[f] to second order; for a quadratic f of a binary choice it is exact."""
    torch.manual_seed(0)
    logits = torch.tensor([0.4, -0.3], requires_grad=True)
    f = lambda x: (x[:, 0] * 1.5 + 0.2) ** 2 - x[:, 1]
    p = logits.softmax(0)
    exact = torch.autograd.grad((p * f(torch.eye(2))).sum(), logits)[0]
    wide = logits.expand(400_000, 2)
    choice = torch.nn.functional.one_hot(torch.multinomial(p.detach(), 400_000, replacement=True), 2).float()
    found = torch.autograd.grad(f(reinmax(wide, choice, 1.0)).mean(), logits)[0]
    assert_close(found, exact, atol=6e-3, rtol=0)
