"""Foreign torch files, read without executing any code in them. It knows no model."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from tessera.errors import CheckpointError, ConfigError, TesseraError

INERT = ("dall_e.", "torch.nn.modules.", "pytorch_lightning.", "lightning.", "omegaconf.", "taming.", "deepspeed.",
         "argparse.Namespace", "numpy.", "collections.defaultdict", "typing.Any", "pathlib.")  # fmt: skip
"""Classes that honest files name. They are never imported; a hollow object takes the place of each."""


REPEATED = 2**20
"""A tensor may repeat a few numbers without memory (stride 0), up to this many elements."""


class Hollow:
    """An object whose class is not imported: only its attributes."""

    def __new__(cls, *args: object, **kwargs: object) -> Hollow:
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})

    def __setitem__(self, key: object, value: object) -> None: ...


def read(path: Path) -> object:
    """The tensors and plain values in a .pt, .ckpt or .pkl file, by torch's restricted reader.

    Raises CheckpointError if the file is missing, cut off, not a torch file, or names code to run.
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


def safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors file. Raises CheckpointError if it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {str(error)[:200]}") from error


def named_in_old_format(path: Path) -> set[str]:
    """The classes that a file of torch before 1.6 names. It is several pickles in a row; they are listed, not run."""
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
            pass  # not a pickle: the reader says so
    return names


@contextmanager
def guarded(path: Path | str) -> Iterator[None]:
    """Where foreign content becomes a model: any error there means that the file is not what it claims.

    One guard for every kind of error, because such content may hold anything anywhere: a number instead of a table, a
    tensor without rows, a list that holds itself.
    """
    try:
        yield
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except TesseraError:
        raise
    except Exception as error:
        reason = (
            f"{type(error).__name__}: {str(error)[:200]}"
            if not isinstance(error, RecursionError)
            else "nested too deeply"
        )
        raise CheckpointError(f"{path} does not hold the checkpoint that it claims to be ({reason}).") from error


def state_of(module: object) -> dict[str, Tensor]:
    """The parameters and buffers of a module that was saved whole and read as hollow objects, each once."""
    found: dict[str, Tensor] = {}
    todo, seen = [("", module)], set()
    while todo:
        prefix, here = todo.pop()
        if id(here) in seen or not isinstance(here, Hollow):
            continue
        seen.add(id(here))
        for kind in ("_parameters", "_buffers"):
            found |= {f"{prefix}{name}": v for name, v in _table(here, kind).items() if isinstance(v, Tensor)}
        todo += [(f"{prefix}{name}.", child) for name, child in reversed(_table(here, "_modules").items())]
    return found


def _table(module: Hollow, kind: str) -> dict[str, object]:
    table = getattr(module, kind, None)
    return {k: v for k, v in table.items() if isinstance(k, str)} if isinstance(table, dict) else {}


def tensors(content: object, path: Path | str, what: str) -> dict[str, Tensor]:
    """Check that content is named tensors. Raises CheckpointError if it is anything else."""
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path}: {what} are a {type(content).__name__}, not named tensors.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {what} are not named tensors; one is a {type(value).__name__}.")
        if value.layout != torch.strided or value.is_meta or value.is_complex() or value.is_quantized:
            raise CheckpointError(f"{path}: {told([name])} of {what} is not a plain tensor of numbers.")
        held = value.untyped_storage().nbytes() // value.element_size()
        if value.numel() > max(held, REPEATED):
            raise CheckpointError(
                f"{path}: {told([name])} of {what} claims {value.numel():,} numbers and holds {held:,}."
            )
    return dict(content)


def told(names: Iterable[object], count: int = 3) -> str:
    """The first few names, for a sentence."""
    shown = [n[:60] if isinstance(n, str) else f"a {type(n).__name__}" for n in list(names)[:count]]
    return ", ".join(shown) or "nothing"
