"""Results of slow work in a folder, each under a digest of all that it depends on. It knows no work."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tessera.errors import ConfigError
from tessera.files.atomic import whole

Arrays = dict[str, np.ndarray]
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
"""What numpy makes of a file that is missing or damaged."""


class Kept:
    """Arrays that were made once. What something depends on is part of its name, so that nothing here grows stale."""

    def __init__(self, folder: Path):
        self.folder = folder

    def get(self, name: str, about: Any, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of an earlier call with the same JSON-able `about`, or those that `make` makes now.

        A damaged file is made again. Raises ConfigError where the folder cannot be written.
        """
        path = self.folder / f"{name}-{digest(about)}.npz"
        with suppress(*UNREADABLE), path.open("rb") as file, np.load(file) as found:
            return {key: found[key] for key in found.files}
        arrays = make()
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole(path) as fresh, fresh.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        return arrays


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into a sentence."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written: {error.strerror or error}. Make room and give the same command again, or "
            "name another folder with --out."
        ) from error


def digest(about: Any) -> str:
    """Equal for equal values, whatever machine asks."""
    return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=10).hexdigest()


def of_tensor(values: Tensor) -> str:
    """A tensor's digest: its shape, type and numbers."""
    array = values.detach().cpu().contiguous().numpy()
    told = hashlib.blake2b(f"{array.shape} {array.dtype}".encode(), digest_size=10)
    told.update(array.tobytes())
    return told.hexdigest()


def of_file(path: Path) -> str:
    """A file's digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=10)).hexdigest()
