"""The discrete VAE and its quantizers."""

import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from conftest import TINY_DVAE
from tessera.config import DVAEConfig
from tessera.errors import ConfigError
from tessera.models.dvae import DiscreteVAE
from tessera.nn.quantize.fsq import FiniteScalar
from tessera.nn.quantize.gumbel import divergence, reinmax

GUMBEL = dataclasses.replace(TINY_DVAE, quantizer="gumbel", codes=9, code_dim=6)


def test_finite_scalar_codes_and_vectors_are_inverse():
    quantize = FiniteScalar(DVAEConfig(levels=(8, 5, 4)))
    codes = torch.arange(160).reshape(1, 16, 10)
    vectors = quantize.vectors(codes)
    assert vectors.flatten(2).unique(dim=2).shape[-1] == 160
    z = torch.randn(2, 3, 5, 5) * 2
    assert_close(quantize.vectors(quantize.codes(z)), quantize(z, 1.0).vectors)
    assert quantize.codes(z * 100).min() >= 0
    assert quantize.codes(z * 100).max() < 160


def test_finite_scalar_passes_the_gradient():
    z = torch.randn(2, 3, 5, 5, requires_grad=True)
    FiniteScalar(DVAEConfig(levels=(8, 5, 4)))(z, 1.0).vectors.sum().backward()
    assert z.grad.abs().min() > 0


def test_kl_is_a_batch_mean():
    """DALLE-pytorch's grew with the batch."""
    logits = torch.randn(1, 9, 4, 4)
    assert_close(divergence(logits), divergence(logits.expand(8, -1, -1, -1)))
    q = logits.softmax(1)
    assert_close(divergence(logits), (q * (q * 9).log()).sum())
    assert divergence(torch.zeros(2, 9, 4, 4)).abs() < 1e-5


@pytest.mark.parametrize(
    "settings", [{}, {"straight_through": True}, {"straight_through": True, "reinmax": True}], ids=str
)
def test_gumbel_gradient_reaches_the_encoder(settings):
    torch.manual_seed(0)
    model = DiscreteVAE(dataclasses.replace(GUMBEL, kl_weight=0.01, **settings))
    loss = model(torch.rand(2, 3, 16, 16), 0.9)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(loss.reconstruction.item() + 0.01 * loss.kl.item())
    assert model.encoder[0][0].weight.grad.abs().sum() > 0
    assert model.quantize.codebook.weight.grad.abs().sum() > 0


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


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("base", [TINY_DVAE, GUMBEL], ids=["fsq", "gumbel"])
def test_any_number_of_channels(base, channels):
    model = DiscreteVAE(dataclasses.replace(base, channels=channels, reconstruction="smooth_l1"))
    pixels = torch.rand(2, channels, 16, 16)
    codes = model.encode(pixels)
    assert codes.shape == (2, 16)
    assert codes.max() < base.vocab
    again = model.decode(codes)
    assert again.shape == pixels.shape
    assert again.min() >= 0
    assert again.max() <= 1


def test_encoding_is_deterministic():
    model = DiscreteVAE(GUMBEL)
    pixels = torch.rand(2, 3, 16, 16)
    assert torch.equal(model.encode(pixels), model.encode(pixels))


def test_grey_is_drawn_grey():
    """Codes that mean grey give grey pixels: nothing is stretched to black and white."""
    model = DiscreteVAE(dataclasses.replace(TINY_DVAE, resblocks=0))
    with torch.no_grad():
        for p in model.decoder.parameters():
            p.zero_()
        model.decoder[-1].bias.fill_(-0.18)
    pixels = model.decode(torch.zeros(1, 16, dtype=torch.long))
    assert_close(pixels, torch.full_like(pixels, 0.41))


def test_codes_of_both_quantizers_match_the_vectors_that_training_sees():
    """At temperature 0 and without noise, training would decode just what drawing decodes."""
    model = DiscreteVAE(TINY_DVAE).eval()
    pixels = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        x = (pixels - model.mean) / model.std
        seen = model.decoder(model.quantize(model.encoder(x), 1.0).vectors) * model.std + model.mean
    assert_close(model.decode(model.encode(pixels)), seen.clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"pixels": 20, "layers": 3}, "multiple of"),
        ({"channels": 5}, "channels is"),
        ({"reinmax": True, "quantizer": "gumbel"}, "straight-through"),
        ({"straight_through": True}, "gumbel"),
        ({"temperature_end": 2.0}, "temperature"),
        ({"levels": (8, 1)}, "at least 2"),
        ({"levels": (8, 8, 8, 8, 8, 8)}, "65,536"),
    ],
)
def test_impossible_settings_are_refused(bad, says):
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(DVAEConfig(), **bad).check()


def test_temperature_falls_with_progress_alone():
    from tessera.train.objectives.dvae import TrainDVAE

    objective = object.__new__(TrainDVAE)
    objective.model = DiscreteVAE(dataclasses.replace(GUMBEL, temperature=1.0, temperature_end=0.25))
    assert [objective.temperature(x) for x in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.25])
    assert math.isclose(objective.temperature(0.5), 0.5)
