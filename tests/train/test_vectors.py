"""Codes with near vectors begin alike, and nothing else about fresh weights changes."""

import torch
import torch.nn.functional as F
from torch.testing import assert_close

from conftest import MODERN, TINY_DVAE
from tessera.config import NoiseConfig, TextToImageConfig, TokensConfig, TrainConfig
from tessera.models.dvae import DiscreteVAE
from tessera.models.text_to_image import TextToImage
from tessera.tokens.image import Frozen
from tessera.train.objectives.fresh import prior
from tessera.train.objectives.vectors import begin_alike

MODEL = TextToImageConfig(text_vocab=20, text_len=5, image_vocab=27, grid=4, transformer=MODERN)
SIZES = {"image_vocab": 400, "grid": 4, "text_vocab": 20, "text_len": 5}


def fresh(alike: float) -> TextToImage:
    image = Frozen(DiscreteVAE(TINY_DVAE).eval())
    torch.manual_seed(3)
    return prior(TrainConfig(model=MODEL, tokens=TokensConfig(alike=alike), noise=NoiseConfig()), image)


def test_without_it_the_weights_are_those_of_the_seed():
    torch.manual_seed(3)
    plain = TextToImage(MODEL).state_dict()
    for name, value in fresh(0.0).state_dict().items():
        assert torch.equal(value, plain[name]), name


def test_only_the_tables_of_codes_change():
    changed = {n for n, v in fresh(0.5).state_dict().items() if not torch.equal(v, fresh(0.0).state_dict()[n])}
    assert changed == {"image_embedding.weight", "image_head.weight"}


def test_near_codes_have_the_share_of_a_gaussian_kernel_in_common():
    """The cosine of two rows is share * exp(- distance^2 / 2), the distance in spreads of the vectors."""
    model = TextToImage(TextToImageConfig(**SIZES, transformer=TRANSFORMER))
    line = torch.linspace(0, 1, 400)[:, None]
    spread = (line / line.std()).squeeze(1)
    before = [t.weight.std() for t in (model.image_embedding, model.image_head)]
    begin_alike(model, line, 0.8)
    for table, std in zip((model.image_embedding.weight, model.image_head.weight), before, strict=True):
        assert_close(table.std(), std, rtol=0.1, atol=0)
        for apart in (1, 100, 300):
            found = F.cosine_similarity(table[:-apart], table[apart:]).mean()
            wanted = 0.8 * torch.exp(-((spread[apart] - spread[0]) ** 2) / 2)
            assert_close(found, wanted, atol=0.1, rtol=0)


TRANSFORMER = type(MODERN)(dim=512, depth=1, heads=1, head_dim=16)
"""Wide, so that random features are near to their kernel."""


def test_tied_tables_change_once():
    tied = TextToImage(TextToImageConfig(**SIZES, tied=True, transformer=TRANSFORMER))
    before = tied.image_head.weight.std()
    begin_alike(tied, torch.randn(400, 2), 1.0)
    assert tied.image_head.weight is tied.image_embedding.weight
    assert_close(tied.image_head.weight.std(), before, rtol=0.1, atol=0)
