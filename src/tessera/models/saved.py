"""A model in a folder: config.json and weights.safetensors, and nothing executable. It knows no runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tessera.config import CLIPConfig, DVAEConfig, TextToImageConfig, to_dict
from tessera.errors import CheckpointError, ConfigError
from tessera.models.clip import CLIP
from tessera.models.dvae import DiscreteVAE
from tessera.models.openai_dvae import OpenAIDVAE, OpenAIDVAEConfig
from tessera.models.text_to_image import TextToImage
from tessera.models.vqgan import VQGAN, VQGANConfig
from tessera.settings import merge

NETWORKS: dict[str, tuple[type, Any]] = {
    "dvae": (DVAEConfig, DiscreteVAE),
    "t2i": (TextToImageConfig, TextToImage),
    "clip": (CLIPConfig, CLIP),
    "vqgan": (VQGANConfig, VQGAN),
    "openai-dvae": (OpenAIDVAEConfig, OpenAIDVAE),
}


def network(config: Any) -> nn.Module:
    """The model that a config describes, with fresh weights."""
    return next(cls for kind, cls in NETWORKS.values() if type(config) is kind)(config)


def write(folder: Path, model: nn.Module, weights: Mapping[str, Tensor] | None = None) -> None:
    """Save a model of this house, tied weights once. `weights` are its own, where an engine holds them elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    config: Any = model.config
    kind = next(name for name, (cls, _) in NETWORKS.items() if type(config) is cls)
    about = {"kind": kind, **to_dict(config)}
    (folder / "config.json").write_text(json.dumps(about, indent=1), "utf-8")
    own = model.state_dict(keep_vars=True)
    first = {id(value): name for name, value in reversed(own.items())}
    given = model.state_dict() if weights is None else weights
    tensors = {name: given[name].detach().cpu().contiguous() for name, value in own.items() if first[id(value)] == name}
    save_file(tensors, folder / "weights.safetensors")


def read(folder: Path) -> nn.Module:
    """The model that `write` saved. Raises CheckpointError where the folder holds none or a damaged one."""
    try:
        about = json.loads((folder / "config.json").read_text("utf-8"))
        config, network = NETWORKS[about.pop("kind")]
        model = network(merge(config(), about))
        fill(model, folder)
    except (OSError, KeyError, ValueError, SafetensorError, ConfigError) as error:
        raise CheckpointError(f"{folder} holds no readable model: {error}") from error
    return model.eval()


def fill(model: nn.Module, folder: Path) -> None:
    """Put the weights in `folder` into the model. Raises CheckpointError where they are those of another model."""
    tensors = load_file(folder / "weights.safetensors")
    missing, extra = model.load_state_dict(tensors, strict=False)
    own = model.state_dict(keep_vars=True)
    filled = {own[name].data_ptr() for name in tensors if name in own}
    missing = [name for name in missing if own[name].numel() and own[name].data_ptr() not in filled]
    if missing or extra:
        raise CheckpointError(
            f"{folder}/weights.safetensors are the weights of another model: "
            f"missing {', '.join(missing[:3]) or 'nothing'}; not wanted {', '.join(extra[:3]) or 'nothing'}."
        )


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def inputs(config: Any, rows: int) -> tuple[Any, ...]:
    """What `network(config)` is called with in training, of `rows` samples, all zero."""
    ids = lambda length: torch.zeros(rows, length, dtype=torch.long)
    if isinstance(config, DVAEConfig):
        return torch.zeros(rows, config.channels, config.pixels, config.pixels), 1.0
    if isinstance(config, CLIPConfig):
        return ids(config.text_len), torch.zeros(rows, config.channels, config.pixels, config.pixels)
    return ids(config.text_len), ids(config.grid * config.grid)
