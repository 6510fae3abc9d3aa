"""Foreign torch files, read without executing anything in them. It knows no model."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from tessera.errors import CheckpointError

INERT = ("dall_e.", "torch.nn.modules.", "pytorch_lightning.", "lightning.", "omegaconf.", "taming.", "deepspeed.",
         "argparse.Namespace", "numpy.", "collections.defaultdict", "typing.Any", "pathlib.")  # fmt: skip
"""Classes that honest files name. They are never imported: a hollow object stands for each."""


class Hollow:
    """What is left of an object whose class is not imported: its attributes."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Hollow:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})

    def __setitem__(self, key: Any, value: Any) -> None: ...


def read(path: Path) -> Any:
    """The tensors and plain values in a .pt, .ckpt or .pkl file, by torch's restricted reader.

    Raises CheckpointError where the file is missing, cut off, no torch file, or asks for anything to be run.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    if not path.stat().st_size:
        raise CheckpointError(f"{path} is empty.")
    try:
        whole = zipfile.is_zipfile(path)
        names = set(get_unsafe_globals_in_checkpoint(str(path)) if whole else named_in_old_format(path))
        if whole and (refused := sorted(name for name in names if not name.startswith(INERT))):
            raise CheckpointError(
                f"{path} wants to run {', '.join(refused[:4])}. A checkpoint holds tensors and plain values; this one "
                "is refused, and nothing in it was run."
            )
        with safe_globals([(type(name, (Hollow,), {}), name) for name in names if name.startswith(INERT)]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # the reader's errors are of many kinds: all mean that the file is not what it claims
        reason = str(error).split("\n")
        told = next((line for line in reason if "Unsupported" in line or "GLOBAL" in line), reason[0]).strip()
        raise CheckpointError(
            f"{path} cannot be read as tensors and plain values ({type(error).__name__}: {told[:200]}). "
            "Is it whole, and a file that torch.save wrote? Nothing in it was run."
        ) from error


def named_in_old_format(path: Path) -> set[str]:
    """The classes that a file of torch before 1.6 names: several pickles in a row, whose codes are listed, not run."""
    names: set[str] = set()
    with path.open("rb") as file:
        try:
            for _ in range(4):  # magic number, protocol, system, and what was saved
                words = ["", ""]
                for code, argument, _ in pickletools.genops(file):
                    if code.name == "GLOBAL":
                        names.add(str(argument).replace(" ", "."))
                    elif code.name == "STACK_GLOBAL":
                        names.add(".".join(words))
                    elif isinstance(argument, str):
                        words = [words[1], argument]
        except (ValueError, UnicodeDecodeError, IndexError):
            pass  # no pickle: the reader says so
    return names


def state_of(module: Any, prefix: str = "") -> dict[str, Tensor]:
    """The parameters and buffers of a module that was saved whole and read as hollow objects."""
    found = {f"{prefix}{k}": v for kind in ("_parameters", "_buffers") for k, v in getattr(module, kind, {}).items()}
    for name, child in getattr(module, "_modules", {}).items():
        found |= state_of(child, f"{prefix}{name}.")
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
