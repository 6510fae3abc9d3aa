"""Optimiser state that ranks wrote together (torch's distributed checkpoint), read whole. Nothing in it is run.

Torch describes such a folder in a pickle, `.metadata`, which its own reader would execute. Here each name in it must
stand in KNOWN, whatever the torch that wrote it; the shards are tensors, which torch's restricted reader opens.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tessera.errors import CheckpointError
from tessera.store.state import read_state
from tessera.train.moments import Moments


def read_optimizer(folder: Path) -> dict:
    """The state that any engine wrote, whole."""
    return {"moments": gathered(folder)} if (folder / METADATA).is_file() else read_state(folder)


METADATA = ".metadata"


class Told:
    """What the description says of something: attributes, and nothing that acts."""

    def __init__(self, *values: Any): ...

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class Properties(Told):
    """Of a tensor; torch writes a tuple that begins with its type."""

    def __setstate__(self, state: Any) -> None:
        self.dtype = state[0]


_DCP = "torch.distributed.checkpoint."
KNOWN: dict[str, Callable[..., Any]] = {
    **{f"{_DCP}metadata.{name}": Told for name in ("Metadata", "TensorStorageMetadata", "ChunkStorageMetadata",
                                                   "BytesStorageMetadata", "StorageMeta", "_MEM_FORMAT_ENCODING",
                                                   "MetadataIndex")},
    f"{_DCP}metadata.TensorProperties": Properties,
    f"{_DCP}filesystem._StorageInfo": Told,
    "torch.Size": tuple,
    "torch.serialization._get_layout": Told,
    **{f"{module}.{name}": Told for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")},
}  # fmt: skip
"""All that an honest description names, and what stands for it."""


class Description(pickle.Unpickler):
    """Reads a description; a name that is not in KNOWN, nor a tensor's type, ends it."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}"
        if name in KNOWN:
            return KNOWN[name]
        if module_name == "torch" and isinstance(found := getattr(torch, global_name, None), torch.dtype):
            return found
        raise CheckpointError(f"it wants to run {name[:80]}, which no description of tensors does")


@dataclass(frozen=True)
class Chunk:
    """A part of a tensor: where it begins there, and where its bytes lie."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: Path
    start: int
    length: int


def gathered(folder: Path) -> Moments:
    """The moments that ranks wrote, as whole tensors by parameter and kind, however many ranks there are now.

    Raises CheckpointError where a part is missing or damaged, or where the description names anything but tensors.
    """
    found: Moments = {}
    try:
        for name, dtype, size, chunks in _described(folder):
            parameter, _, kind = name.rpartition("|")
            found.setdefault(parameter, {})[kind] = _whole(dtype, size, chunks)
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to say
        reason = str(error) or type(error).__name__
        raise CheckpointError(
            f"{folder} holds no readable optimiser state of several ranks: {reason[:300]}. Nothing in it was run."
        ) from error
    return found


def _described(folder: Path) -> Iterator[tuple[str, torch.dtype, tuple[int, ...], list[Chunk]]]:
    """Name, type, size and chunks of each tensor, held against the files that are there."""
    about = Description(io.BytesIO((folder / METADATA).read_bytes())).load()
    stored = {(key.fqn, tuple(getattr(key, "offset", None) or ())): value for key, value in about.storage_data.items()}
    for name, said in about.state_dict_metadata.items():
        size, dtype = tuple(said.size), said.properties.dtype
        chunks = []
        for chunk in said.chunks:
            offsets, sizes = tuple(chunk.offsets), tuple(chunk.sizes)
            at = stored[name, offsets]
            file = folder / at.relative_path
            if Path(at.relative_path).name != at.relative_path or at.relative_path in (".", ".."):
                raise CheckpointError(f"{name} is said to lie in {at.relative_path[:80]}, outside of the folder")
            if getattr(at, "transform_descriptors", None):
                raise CheckpointError(f"{name} was written through a filter ({at.transform_descriptors})")
            if not 0 <= at.offset <= at.offset + at.length <= file.stat().st_size:
                raise CheckpointError(f"{file.name} is shorter than what is said to be in it")
            chunks.append(Chunk(offsets, sizes, file, at.offset, at.length))
        if sum(math.prod(c.sizes) for c in chunks) != math.prod(size) or min(size, default=0) < 0:
            raise CheckpointError(f"the parts of {name} do not make up its size {list(size)}")
        if math.prod(size) * dtype.itemsize > sum(c.length for c in chunks):
            raise CheckpointError(f"{name} is said to be larger than the files that hold it")
        yield name, dtype, size, chunks


def _whole(dtype: torch.dtype, size: tuple[int, ...], chunks: list[Chunk]) -> Tensor:
    full = torch.zeros(size, dtype=dtype)
    for c in chunks:
        with c.file.open("rb") as file:
            file.seek(c.start)
            part = torch.load(io.BytesIO(file.read(c.length)), map_location="cpu", weights_only=True)
        if tuple(part.shape) != c.sizes or part.dtype != dtype:
            raise CheckpointError(f"{c.file.name} holds {list(part.shape)} where {list(c.sizes)} is said to be")
        full[tuple(slice(a, a + n) for a, n in zip(c.offsets, c.sizes, strict=True))] = part
    return full
