"""The discrete VAE: pixels to codes and back, with every quantizer."""

import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from conftest import TINY_DVAE
from tessera.config import FSQ, DVAEConfig, Gumbel, Lookup
from tessera.errors import ConfigError
from tessera.models.dvae import DiscreteVAE

GUMBEL = dataclasses.replace(TINY_DVAE, quantizer=Gumbel(codes=9, code_dim=6))
LOOKUP = dataclasses.replace(TINY_DVAE, quantizer=Lookup(codes=9, code_dim=6))


def with_(quantizer: Gumbel | FSQ | Lookup) -> DVAEConfig:
    return dataclasses.replace(TINY_DVAE, quantizer=quantizer)


@pytest.mark.parametrize(
    "settings", [{}, {"straight_through": True}, {"straight_through": True, "reinmax": True}], ids=str
)
def test_gumbel_gradient_reaches_the_encoder(settings):
    torch.manual_seed(0)
    model = DiscreteVAE(with_(Gumbel(codes=9, code_dim=6, kl_weight=0.01, **settings)))
    loss = model(torch.rand(2, 3, 16, 16), 0.9)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(loss.reconstruction.item() + loss.quantizer.item())
    assert loss.quantizer > 0
    assert model.encoder[0][0].weight.grad.abs().sum() > 0
    assert model.quantize.codebook.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("base", [TINY_DVAE, GUMBEL, LOOKUP], ids=["fsq", "gumbel", "lookup"])
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


@pytest.mark.parametrize("base", [TINY_DVAE, LOOKUP], ids=["fsq", "lookup"])
def test_training_sees_the_vectors_that_drawing_decodes(base):
    model = DiscreteVAE(base).eval()
    pixels = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        again, loss = model.relaxed(pixels, 1.0)
    seen = again * model.std + model.mean
    codes = model.encode(pixels)
    assert_close(model.decode(codes), seen.clamp(0, 1), atol=1e-5, rtol=0)
    assert loss.usage == codes.unique().numel()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"pixels": 20, "layers": 3}, "multiple of"),
        ({"channels": 5}, "channels is"),
        ({"quantizer": Gumbel(reinmax=True)}, "straight-through"),
        ({"quantizer": Gumbel(temperature_end=2.0)}, "temperature"),
        ({"quantizer": FSQ(levels=(8, 1))}, "at least 2"),
        ({"quantizer": FSQ(levels=(8, 8, 8, 8, 8, 8, 8))}, "262,144 at most"),
        ({"quantizer": "fsq"}, "quantizer is 'fsq'"),
    ],
)
def test_impossible_settings_are_refused(bad, says):
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(DVAEConfig(), **bad).check()


def test_temperature_falls_with_progress_alone():
    from tessera.train.objectives.dvae import TrainDVAE

    objective = object.__new__(TrainDVAE)
    objective.model = DiscreteVAE(with_(Gumbel(codes=9, code_dim=6, temperature=1.0, temperature_end=0.25)))
    assert [objective.temperature(x) for x in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.25])
    assert math.isclose(objective.temperature(0.5), 0.5)
