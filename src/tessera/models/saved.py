"""A model in a folder: config.json and weights.safetensors, nothing executable. It knows no runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tessera.config import (
    AnyOrderConfig,
    CLIPConfig,
    DVAEConfig,
    PyramidConfig,
    TextToImageConfig,
    VQGANConfig,
    adapted,
    to_dict,
)
from tessera.config.merging import merge, read_json
from tessera.errors import CheckpointError, ConfigError
from tessera.models.any_order import AnyOrder
from tessera.models.clip import CLIP
from tessera.models.dvae import DiscreteVAE
from tessera.models.openai_dvae import OpenAIDVAE, OpenAIDVAEConfig
from tessera.models.pyramid import Pyramid
from tessera.models.text_to_image import TextToImage
from tessera.models.vqgan import VQGAN

NETWORKS: dict[str, tuple[type, type[nn.Module]]] = {
    "dvae": (DVAEConfig, DiscreteVAE),
    "pyramid": (PyramidConfig, Pyramid),
    "t2i": (TextToImageConfig, TextToImage),
    "any_order": (AnyOrderConfig, AnyOrder),
    "clip": (CLIPConfig, CLIP),
    "vqgan": (VQGANConfig, VQGAN),
    "openai-dvae": (OpenAIDVAEConfig, OpenAIDVAE),
}


def network(config: object) -> nn.Module:
    """The model that a config describes, with fresh weights."""
    return class_of(config)(config)


def class_of(config: object) -> Any:
    """The class of the model that a config describes."""
    return next(cls for kind, cls in NETWORKS.values() if type(config) is kind)


def write(folder: Path, model: nn.Module, weights: Mapping[str, Tensor] | None = None) -> None:
    """Save a model, tied weights once. `weights` are its weights if an engine holds them elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    config: Any = model.config
    kind = next(name for name, (cls, _) in NETWORKS.items() if type(config) is cls)
    about = json.loads(json.dumps({"kind": kind, **to_dict(config)}))
    (folder / "config.json").write_text(json.dumps(about, indent=1), "utf-8")
    own = model.state_dict(keep_vars=True)
    first = {id(value): name for name, value in reversed(own.items())}
    given = model.state_dict() if weights is None else weights
    tensors = {name: given[name].detach().cpu().contiguous() for name, value in own.items() if first[id(value)] == name}
    save_file(tensors, folder / "weights.safetensors", {"config": digest(about)})


def read(folder: Path) -> nn.Module:
    """The model that `write` saved. Raises CheckpointError if there is none, if it is damaged, or if the weights do not
    fit the config."""
    try:
        model = network(fitting(folder))
        fill(model, folder)
    except UNREADABLE as error:
        raise CheckpointError(f"{folder} holds no readable model: {str(error) or type(error).__name__}") from error
    return model.eval()


UNREADABLE = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError,
    MemoryError, SafetensorError, ConfigError,
)  # fmt: skip
"""Errors that damaged or hand-edited files cause."""


def fitting(folder: Path) -> object:
    """The config of the model in a folder, whose weights are those of such a model, as far as names and shapes tell.
    Raises what is in UNREADABLE, or CheckpointError."""
    config = described(folder)
    with torch.device("meta"):  # no memory yet: the config may promise more than there are weights
        fits(network(config), folder)
    return config


def described(folder: Path) -> object:
    """The config of the model in a folder, of any kind. Raises ConfigError if there is none, or if the weights beside
    it were saved with another."""
    about = read_json(folder / "config.json", dict)
    with safe_open(folder / "weights.safetensors", "pt") as file:
        saved_with = (file.metadata() or {}).get("config")  # files of earlier releases do not say it
    if saved_with not in (None, digest(about)):
        raise ConfigError("config.json is not the one that weights.safetensors were saved with")
    kind = about.pop("kind", None)
    if not isinstance(kind, str) or kind not in NETWORKS:
        raise ConfigError(f"a model of kind {str(kind)[:40]!r} is unknown")
    return merge(NETWORKS[kind][0](), about)


def digest(about: Mapping[str, object]) -> str:
    """Equal for equal configs. Patterns, for one, change what weights mean without changing a shape."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def fits(model: nn.Module, folder: Path) -> None:
    """Raises CheckpointError if the weights in `folder` have other names or shapes than the model. Reads only names."""
    own = model.state_dict(keep_vars=True)
    with safe_open(folder / "weights.safetensors", "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    filled = {id(own[name]) for name in shapes if name in own}
    missing = [name for name, value in own.items() if value.numel() and id(value) not in filled]
    extra = [name for name in shapes if name not in own]
    other = [name for name, shape in shapes.items() if name in own and tuple(own[name].shape) != shape]
    if missing or extra or other:
        wrong = {"missing": missing, "not wanted": extra, "of another shape": other}
        told = "; ".join(f"{what} {', '.join(names[:3])}" for what, names in wrong.items() if names)
        raise CheckpointError(f"{folder}/weights.safetensors are the weights of another model: {told}.")


def fill(model: nn.Module, folder: Path) -> None:
    """Load the weights in `folder` into the model. Raises CheckpointError if they are those of another model."""
    try:
        if adapted(described(folder), model.config) != model.config:
            raise CheckpointError(f"{folder}/config.json describes another model.")
        fits(model, folder)
        model.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)
    except UNREADABLE as error:
        raise CheckpointError(f"{folder} holds no readable weights: {str(error) or type(error).__name__}") from error


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def inputs(config: object, rows: int) -> tuple[Tensor | float, ...]:
    """The arguments of `network(config)` in training, for `rows` samples, all zero."""
    return class_of(config).inputs(config, rows)
