"""What trained networks see in a picture: numbers to compare, and classes. It knows no figures.

Networks are never put in each other's place: the name of the one that looked stands in every figure's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tessera.errors import CheckpointError, ConfigError, DataError, install
from tessera.evaluate.inception import FIDInception
from tessera.files.download import CACHE, TRIES, checksum, download
from tessera.imports.imagenet import SHA256, efficientnet
from tessera.imports.pretrained import load_weights
from tessera.imports.reader import guarded, read, safetensors, tensors
from tessera.machine.device import choose_device
from tessera.models.perceptual import in_colour


class Seen(NamedTuple):
    """What a network makes of pictures."""

    features: Float[Tensor, "B D"]
    probabilities: Float[Tensor, "B C"] | None
    """Of the network's own classes, where it has any."""


class Features(Protocol):
    """A network that looks at pictures."""

    name: str
    """As it stands in the name of every figure. Empty where there is no network."""
    classes: bool
    """Whether it says what it sees, as probabilities of classes."""

    def __call__(self, pixels: Float[Tensor, "B 3 S S"]) -> Seen:
        """`pixels` lie in 0 ... 1, on any device; what is seen comes back on the CPU, in float32."""
        ...


Loader = Callable[[str, torch.device], Features]


def load(name: str, device: str = "auto") -> Features:
    """A network by name: lite2, lite0, none, inception, dinov2, clip; the last three with :PATH for files on this
    machine, or downloaded once.

    Raises ConfigError for a name that is not known or a package that is not installed, and CheckpointError where the
    weights are not there, cannot be fetched, are damaged, or are not the ones that the name promises.
    """
    kind, _, place = name.partition(":")
    if kind not in FEATURES:
        raise ConfigError(f"There are no features '{name[:100]}'. Choose one of {', '.join(FEATURES)}.")
    if place and kind not in PUBLISHED:
        raise ConfigError(f"features {kind} take no path; '{place[:100]}' was given.")
    return FEATURES[kind](place, choose_device(device))


@torch.no_grad()
def seen(features: Features, pictures: Tensor | Iterable[Tensor], rows: int = 4) -> Seen:
    """What a network makes of many pictures [C, S, S] in 0 ... 1, `rows` at a time; gray ones and ones with
    transparency too. Raises DataError where there are none."""
    remaining, parts = iter(pictures), []
    while part := list(islice(remaining, rows)):
        parts.append(features(in_colour(torch.stack(part))))
    if not parts:
        raise DataError("There are no pictures to look at.")
    probabilities = [p.probabilities for p in parts if p.probabilities is not None]
    return Seen(torch.cat([p.features for p in parts]), torch.cat(probabilities) if probabilities else None)


def enlarged(pixels: Float[Tensor, "B 3 S S"], side: int) -> Float[Tensor, "B 3 side side"]:
    """Antialiased bicubic interpolation, kept inside 0 ... 1."""
    if pixels.shape[-1] == side:
        return pixels
    return F.interpolate(pixels, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


class Lite:
    """An EfficientNet-Lite: the pooled head's 1,280 channels and ImageNet's 1,000 classes."""

    classes = True

    def __init__(self, name: str, network: Any, side: int, device: torch.device):
        self.name, self.side, self.device = name, side, device
        self.network = network.eval().to(device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, pixels: Float[Tensor, "B 3 S S"]) -> Seen:
        scaled = (255 * enlarged(pixels.to(self.device), self.side) - 127) / 128
        maps = self.network.extract_features(scaled.contiguous(memory_format=torch.channels_last))
        pooled = maps.mean((2, 3))  # [B, 1280]
        return Seen(pooled.float().cpu(), self.network._fc(pooled).softmax(1).float().cpu())


class Pooled:
    """A network with one vector for a picture and no classes. `scaled` makes its input of pixels in 0 ... 1."""

    classes = False

    def __init__(self, name: str, scaled: Callable[[Tensor], Tensor], vector: Callable[[Tensor], Tensor], device: Any):
        self.name, self.scaled, self.vector, self.device = name, scaled, vector, device

    @torch.inference_mode()
    def __call__(self, pixels: Float[Tensor, "B 3 S S"]) -> Seen:
        return Seen(self.vector(self.scaled(pixels.to(self.device))).float().cpu(), None)


class Nothing:
    """Stands where no network is wanted: what it sees has no numbers."""

    name, classes = "", False

    def __call__(self, pixels: Float[Tensor, "B 3 S S"]) -> Seen:
        return Seen(torch.zeros(len(pixels), 0), None)


# From the package index.

SIDES = {"lite0": 224, "lite2": 260}


def lite(kind: str) -> Loader:
    """EfficientNet-Lite with ImageNet's weights."""

    def loader(place: str, device: torch.device) -> Lite:
        with optional(kind, "judge"):
            network = efficientnet(kind)
        return Lite(kind.title(), network, SIDES[kind], device)

    return loader


@contextmanager
def optional(features: str, extra: str) -> Iterator[None]:
    """Around the import of a package that not everybody needs. Raises ConfigError with the line that installs it."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"features {features} need a package that is not installed ({error}): {install(extra)}. "
            "Figures that need no features are given with: none."
        ) from error


# From files on this machine, or fetched to it.

HUB = "https://huggingface.co/{}/resolve/main/{}"
PUBLISHED: dict[str, dict[str, str]] = {
    "inception": {
        "weights.pth": "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth"
    },
    "dinov2": {n: HUB.format("facebook/dinov2-small", n) for n in ("config.json", "model.safetensors")},
    "clip": {n: HUB.format("openai/clip-vit-large-patch14", n) for n in ("config.json", "model.safetensors")},
}
"""What is fetched where no path is given. Other sizes of DINOv2 and CLIP are read from folders."""


def fetched(kind: str) -> Path:
    """The folder with a network's published files, each downloaded once."""
    folder = CACHE / "features" / kind
    try:
        for file, url in PUBLISHED[kind].items():
            download(url, folder / file, SHA256[kind] if file == "weights.pth" else "", tries=TRIES)
    except CheckpointError as error:
        raise CheckpointError(f"{error} As features they are then named {kind}:PATH, {WANTED[kind]}.") from error
    return folder


WANTED = {
    "inception": "the .pth or .safetensors with the FID's weights",
    "dinov2": "a folder with config.json and model.safetensors as transformers saves them",
    "clip": "a folder with config.json and model.safetensors as transformers saves them",
}


def inception(place: str, device: torch.device) -> Pooled:
    """Inception-v3 as the FID wants it, 2,048 channels. Weights that are not the FID's carry a checksum in the name."""
    path = Path(place).expanduser() if place else fetched("inception") / "weights.pth"
    if path.suffix == ".safetensors":
        state = safetensors(path)
    else:
        state = tensors(read(path), path, "the weights of an Inception-v3")
    state |= {f"{n[:-12]}num_batches_tracked": torch.zeros(()) for n in state if n.endswith(".running_mean")}
    network = load_weights(FIDInception, state, path).to(device)
    return Pooled(_named("Inception", path, SHA256["inception"]), lambda pixels: pixels, network, device)


def _named(name: str, weights: Path, sha256: str = "") -> str:
    """The network's name, with the first digits of its weights' checksum where they are not the published ones."""
    found = checksum(weights)
    return name if found == sha256 else f"{name}-{found[:8]}"


def dinov2(place: str, device: torch.device) -> Pooled:
    """DINOv2's class token after the last norm, at 224 px (Oquab et al. 2023; so do Stein et al. 2023)."""
    network, name = _transformers("Dinov2Model", "DINOv2", place, device)
    scaled = _normalised(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), device)
    return Pooled(name, scaled, lambda x: network(pixel_values=x).last_hidden_state[:, 0], device)


def clip(place: str, device: torch.device) -> Pooled:
    """CLIP's picture vector before normalisation, at the side that its config names (Radford et al. 2021)."""
    network, name = _transformers("CLIPVisionModelWithProjection", "CLIP", place, device)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    scaled = _normalised(network.config.image_size, mean, std, device)
    return Pooled(name, scaled, lambda x: network(pixel_values=x).image_embeds, device)


def _normalised(side: int, mean: tuple[float, ...], std: tuple[float, ...], device: Any) -> Callable[[Tensor], Tensor]:
    middle, spread = (torch.tensor(v, device=device).view(3, 1, 1) for v in (mean, std))
    return lambda pixels: (enlarged(pixels, side) - middle) / spread


def _transformers(kind: str, name: str, place: str, device: torch.device) -> tuple[Any, str]:
    """A network of transformers and the name of its figures, from a folder. No code that the folder may hold is run."""
    given = _complete(Path(place).expanduser(), name) if place else None
    with optional(name.lower(), "transformers"):
        import transformers
    folder = given or fetched(name.lower())
    weights = folder / "model.safetensors"
    with guarded(folder):
        network, told = getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    if told["missing_keys"]:
        raise CheckpointError(f"{weights} lacks weights of a {kind}: {', '.join(sorted(told['missing_keys'])[:3])}.")
    return network.eval().to(device), _named(name, weights)


def _complete(folder: Path, name: str) -> Path:
    for file in (folder / "config.json", folder / "model.safetensors"):
        if not file.is_file():
            raise CheckpointError(f"There is no file {file}. Name {WANTED[name.lower()]}.")
    return folder


FEATURES: dict[str, Loader] = {
    "lite2": lite("lite2"),
    "lite0": lite("lite0"),
    "inception": inception,
    "dinov2": dinov2,
    "clip": clip,
    "none": lambda place, device: Nothing(),
}
"""By name. The first two come with the extra `judge`, the next three from files on this machine or the network."""
