"""What a prior reads in the place of codes: how many are replaced and by what, and that it predicts the true ones."""

import pytest
import torch
from torch.testing import assert_close

from conftest import MODERN, TINY_DVAE, prior
from tessera.config import NoiseConfig
from tessera.errors import ConfigError
from tessera.models.dvae import DiscreteVAE
from tessera.tokens.image import Frozen
from tessera.train.objectives.noise import Replaced, read_as
from tessera.train.objectives.vectors import neighbours, vectors

TOKENS = torch.tensor([[3, 4, 7, 23, 24]])
CODES = torch.randint(0, 11, (1, 16), generator=torch.Generator().manual_seed(5))
MANY = torch.arange(27).repeat(100, 1)


def image() -> Frozen:
    torch.manual_seed(0)
    return Frozen(DiscreteVAE(TINY_DVAE).eval())


def read(by: str, share: float) -> torch.Tensor:
    """What training reads in the place of `MANY`."""
    torch.manual_seed(1)
    return read_as(NoiseConfig(codes=share, by=by), image())(MANY)


def test_no_noise_is_the_codes_themselves_and_takes_no_chance():
    layer = read_as(NoiseConfig(), image())
    before = torch.get_rng_state()
    assert layer(MANY) is MANY
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("by", ["any", "near"])
def test_a_share_is_replaced_in_training_alone(by):
    found = read(by, 0.3)
    assert float((found != MANY).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(found, read(by, 0.3)), "it follows from the seed of the step"
    layer = read_as(NoiseConfig(codes=0.3, by=by), image()).eval()
    assert torch.equal(layer(MANY), MANY)


def test_any_other_code_is_equally_likely_and_none_is_itself():
    found = read("any", 1.0)
    assert not (found == MANY).any()
    counts = torch.bincount(found[:, 5], minlength=27)
    assert counts[5] == 0
    assert (found >= 0).all()
    assert (found < 27).all()


def test_near_codes_are_among_the_nearest():
    table = neighbours(vectors(image()), 6)
    assert (read("near", 1.0)[..., None] == table[MANY]).any(-1).all()
    assert (vectors(image())[table[:, 0]] - vectors(image())).abs().sum(-1).max() == 1  # levels -1, 0, 1: one step


def test_neighbours_are_the_smallest_distances():
    points = torch.randn(9, 3)
    for i, row in enumerate(neighbours(points, 3)):
        others = sorted((float((points[i] - points[j]).norm()), j) for j in range(9) if j != i)
        assert row.tolist() == [j for _, j in others[:3]]


class Later(torch.nn.Module):
    def forward(self, codes):
        return (codes + 3) % 11


def test_the_true_codes_are_predicted():
    model = prior(MODERN).train()
    swapped = (CODES + 3) % 11
    model.read_as = Replaced(1.0, Later())
    with torch.no_grad():
        loss = model(TOKENS, CODES)
        logits = model.image_logits(TOKENS, swapped[:, :-1])
    assert_close(loss.image, torch.nn.functional.cross_entropy(logits.flatten(0, 1), CODES.flatten()))


def test_a_tokenizer_without_vectors_is_named():
    class Other:
        vocab = 4

    with pytest.raises(ConfigError, match="which codes are near"):
        read_as(NoiseConfig(codes=0.1, by="near"), Other())  # type: ignore[arg-type]
