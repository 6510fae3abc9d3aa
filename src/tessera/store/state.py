"""Training state on disk: tensors in safetensors, everything else in JSON. Nothing in it can be executed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from tessera.config.merging import read_json
from tessera.errors import CheckpointError, ConfigError

Tree: TypeAlias = "Tensor | str | float | bool | Sequence[Tree] | Mapping[str, Tree] | None"


def write_state(folder: Path, tree: Tree) -> None:
    """Save nested dicts and lists of tensors, numbers and strings."""
    folder.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    plain = _pack(tree, tensors)
    save_file(tensors, folder / "state.safetensors")
    (folder / "state.json").write_text(json.dumps(plain), "utf-8")


def read_state(folder: Path) -> Any:
    """What `write_state` saved. Raises CheckpointError if it is missing or damaged."""
    try:
        return _unpack(read_json(folder / "state.json", dict), load_file(folder / "state.safetensors"))
    except DAMAGES as error:
        raise CheckpointError(f"{folder} holds no readable training state: {error}") from error


DAMAGES = (
    OSError, ValueError, TypeError, AttributeError, RecursionError, SafetensorError, KeyError, ConfigError,
)  # fmt: skip
"""What reading a damaged file raises."""


def _pack(tree: Tree, tensors: dict[str, Tensor]) -> dict[str, object]:
    if isinstance(tree, Tensor):
        name = str(len(tensors))
        tensors[name] = tree.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(tree, Mapping):
        return {"items": [[key, _pack(value, tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        return {"list": [_pack(value, tensors) for value in tree]}
    return {"value": tree}


def _unpack(plain: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, value),) = plain.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "items":
        return {key: _unpack(part, tensors) for key, part in value}
    if kind == "list":
        return [_unpack(part, tensors) for part in value]
    return value
