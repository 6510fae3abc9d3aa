"""Small models and small data that every test may use."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on two busy cores are slower than one

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

# Shapes at the seams are enforced here and only here; geometry is left out because FlexAttention traces it.
SEAMS = [
    "tessera.nn.cache",
    "tessera.nn.rotary",
    "tessera.nn.attention",
    "tessera.nn.stack",
    "tessera.nn.loss",
    "tessera.nn.quantize.fsq",
    "tessera.nn.quantize.gumbel",
    "tessera.models.text_to_image",
    "tessera.models.any_order",
    "tessera.models.dvae",
    "tessera.generate.choose",
    "tessera.generate.certainty",
    "tessera.generate.guidance",
    "tessera.generate.ahead",
    "tessera.generate.captions",
    "tessera.generate.raster",
    "tessera.generate.orders",
]
with install_import_hook(SEAMS, "beartype.beartype"):
    import tessera.generate.captions
    import tessera.generate.raster
    import tessera.models.any_order
    import tessera.models.dvae
    import tessera.models.text_to_image  # noqa: F401

from ranks import Ranks
from tessera.cli import main
from tessera.config import FSQ, CLIPConfig, DVAEConfig, TextToImageConfig, TransformerConfig
from tessera.journeys import birds
from tessera.models.text_to_image import TextToImage

torch.set_num_threads(1)

MODERN = TransformerConfig(dim=32, depth=3, heads=2, head_dim=16)
CLASSIC = TransformerConfig(
    dim=30, depth=3, heads=2, head_dim=12, positions="rotary_dalle1", norm="layer", qk_norm=False, ff="geglu",
    ff_mult=4.0, bias=True, shift=True, layer_scale=True, zero_init=False,
)  # fmt: skip
TINY_DVAE = DVAEConfig(pixels=16, layers=2, hidden=8, resblocks=1, quantizer=FSQ(levels=(3, 3, 3)))
TINY_CLIP = CLIPConfig(
    text_vocab=20, text_len=5, pixels=16, patch=8, dim_text=16, dim_image=16, dim_latent=8, text_depth=1, image_depth=1,
    text_heads=2, image_heads=2, head_dim=8,
)  # fmt: skip
GOLDEN = Path(__file__).parent / "golden"


def prior(transformer: TransformerConfig, seed: int = 0, **changes: object) -> TextToImage:
    """A TextToImage with random weights everywhere, so that no branch is silent."""
    torch.manual_seed(seed)
    settings = {"text_vocab": 20, "text_len": 5, "image_vocab": 11, "grid": 4, **changes}
    model = TextToImage(TextToImageConfig(**settings, transformer=transformer)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * (0.3 if "scale" not in name else 0.1) + ("scale" in name) * 0.5)
    return model


def fails(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """What the command line says when it refuses these arguments."""
    with pytest.raises(SystemExit) as stopped:
        main([str(arg) for arg in args])
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    return captured.err + captured.out


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Processes that need no time to start."""
    server = Ranks(tmp_path_factory.mktemp("ranks"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def bird_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds")
    birds.draw_folder(folder, 40, pixels=32, seed=1)
    return folder
