"""A model of this house under DALLE-pytorch's names: its state dict and its parameters. It knows no model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from tessera.imports.dalle_pytorch.names import Names, canonical
from tessera.nn.stack import Scale

Seat = tuple[str, Tensor, tuple[int, ...]]
"""A weight: DALLE-pytorch's name, the tensor, its shape there (or () for the same)."""


class Face(nn.Module):
    """A model of ours whose state dict and parameters have DALLE-pytorch's names."""

    def seats(self) -> list[Seat]:
        raise NotImplementedError

    def constants(self) -> dict[str, Tensor]:
        """The entries of a state dict that are not weights."""
        return {}

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        found = OrderedDict() if destination is None else destination
        for name, value, shape in self.seats():
            value = value if keep_vars else value.detach()
            fits = shape and value.shape != shape and value.numel()  # a weight that ZeRO 3 sharded is empty here
            found[prefix + name] = value.reshape(shape) if fits else value
        found.update({prefix + name: value for name, value in self.constants().items()})
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Accepts the names of every release. With `strict`, raises RuntimeError for other names, as torch does."""
        given = {canonical(name): (name, value) for name, value in state_dict.items()}
        own = {canonical(name): (name, value) for name, value, _ in self.seats()}
        silent = {canonical(name) for name in self.constants()}
        missing = [name for key, (name, _) in own.items() if key not in given]
        unknown = [name for key, (name, _) in given.items() if key not in own and key not in silent]
        wrong = []
        with torch.no_grad():
            for key in own.keys() & given.keys():
                target, (name, value) = own[key][1], given[key]
                if value.numel() == target.numel():
                    target.copy_(value.reshape(target.shape))
                else:
                    wrong.append(f"{name} is {list(value.shape)}, not {list(target.shape)}")
        if wrong or (strict and (missing or unknown)):
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}: missing {missing[:4]} ({len(missing)}), "
                f"unexpected {unknown[:4]} ({len(unknown)}), of another shape {wrong[:4]}."
            )
        return _IncompatibleKeys(missing, unknown)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """In the original's order, so that the states of its optimiser fit."""
        seen: set[int] = set()
        for name, value, _ in self.seats():
            if isinstance(value, nn.Parameter) and not (remove_duplicate and id(value) in seen):
                seen.add(id(value))
                yield f"{prefix}{'.' if prefix else ''}{name}", value


def seats_of(model: nn.Module, table: Names) -> list[Seat]:
    own = dict(model.named_parameters(remove_duplicate=False))
    return [(theirs, own[ours], shape) for theirs, ours, shape in table]


def widen_scales(model: nn.Module) -> None:
    """[D] -> [1, 1, D], as in the states of the original's optimiser."""
    for module in model.modules():
        if isinstance(module, Scale):
            module.scale = nn.Parameter(module.scale.detach()[None, None])
