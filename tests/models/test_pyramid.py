"""The pyramid: pixels to codes and back at every size, and what it keeps of a picture is its own weights alone."""

import dataclasses
import sys

import pytest
import torch
from torch.testing import assert_close

from tessera.config import EMA, FSQ, LFQ, DVAEConfig, Gumbel, Lite0, Lookup, PyramidConfig, SimVQ, TrainConfig, kind_of
from tessera.errors import ConfigError
from tessera.models import saved
from tessera.models.pyramid import GroupNorm, Pyramid
from tessera.tokens import image
from tessera.train import plan
from tessera.train.work import training_flops

TINY = PyramidConfig(pixels=16, widths=(8, 16), quantizer=FSQ(levels=(3, 3, 3)))
QUANTIZERS = [FSQ(levels=(3, 3, 3)), Gumbel(codes=9), Lookup(codes=9), LFQ(bits=3), SimVQ(codes=9), EMA(codes=9)]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("pixels", "patch", "widths", "grid"), [(16, 2, (8, 16), 4), (32, 4, (8, 16, 24), 2), (24, 1, (8,), 24)]
)
def test_codes_and_pictures_have_the_sizes_that_the_settings_say(channels, pixels, patch, widths, grid):
    config = dataclasses.replace(TINY, channels=channels, pixels=pixels, patch=patch, widths=widths)
    model, pictures = Pyramid(config), torch.rand(2, channels, pixels, pixels)
    codes = model.encode(pictures)
    assert (config.grid, codes.shape) == (grid, (2, grid * grid))
    assert codes.max() < config.vocab
    again = model.decode(codes)
    assert again.shape == pictures.shape
    assert 0 <= again.min() <= again.max() <= 1


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=kind_of)
def test_every_quantizer_passes_gradients_and_is_planned(quantizer):
    pytest.importorskip("vector_quantize_pytorch", reason="the quantizers extra is not installed")
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, quantizer=quantizer)
    model = Pyramid(config)
    loss = model(torch.rand(2, 3, 16, 16), 0.9)
    loss.total.backward()
    assert float(loss.total.detach()) == pytest.approx(float((loss.reconstruction + loss.quantizer).detach()))
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.encoder[1].weight.grad.abs().sum() > 0
    for planned in (config, DVAEConfig(pixels=16, layers=2, hidden=8, quantizer=quantizer)):
        assert training_flops(saved.network(planned)) > 0
        assert plan.predict(TrainConfig(model=planned), 2).working > 0


def test_training_sees_the_vectors_that_drawing_decodes():
    torch.manual_seed(0)
    model, pixels = Pyramid(TINY).eval(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        loss = model(pixels, 1.0)
    codes = model.encode(pixels)
    assert_close(model.decode(codes), loss.again.clamp(0, 1), atol=1e-5, rtol=0)
    assert loss.usage == codes.unique().numel()


def test_norms_are_float32_in_any_precision():
    norm, x = GroupNorm(2, 4), 100 + torch.randn(3, 4, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), norm(x.bfloat16().float()), atol=0.02, rtol=0.01)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"pixels": 20, "widths": (8, 16, 24)}, "multiple of 8. Try model.pixels 16"),
        ({"widths": (8, 20)}, "widths has 20, which is not a multiple of model.groups"),
        ({"quantizer": FSQ(levels=(512, 513))}, "262,144 at most"),
        ({"perceptual": Lite0(taps=())}, "taps"),
    ],
)
def test_wrong_settings_are_sentences(bad, says):
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(TINY, **bad).check()


def test_what_helped_in_training_stands_in_the_settings_and_not_in_the_weights(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)  # reading and drawing never need it
    helped = Pyramid(dataclasses.replace(TINY, perceptual=Lite0(deep=0.5)))
    saved.write(tmp_path, helped)
    found = image.load(tmp_path)
    assert found.config == helped.config
    assert image.helpers(found) == ("lite0",)
    assert image.helpers(image.Frozen(Pyramid(TINY))) == ()
    assert found.model.state_dict().keys() == Pyramid(TINY).state_dict().keys()
    pixels = torch.rand(2, 3, 16, 16)
    assert torch.equal(found.encode(pixels), helped.encode(pixels))
