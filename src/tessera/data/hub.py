"""Hugging Face datasets, by name or from a saved folder. The library is imported only here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera.data import captions as texts
from tessera.data.sources import Folder, Pair, Skip
from tessera.errors import ConfigError, DataError, install

PREFIX = "hf:"


@dataclass(frozen=True)
class Row:
    """A picture in a table; it is read like a path."""

    table: Any
    column: str
    row: int

    def read_bytes(self) -> bytes:
        value = self.table[self.row][self.column]
        return value["bytes"] or Path(value["path"]).read_bytes()

    def is_file(self) -> bool:
        return True

    def is_symlink(self) -> bool:
        return False

    def __fspath__(self) -> str:
        return f"{self.table._fingerprint}:{self.row}"


def scan(path: str, caption_column: str = "") -> Folder:
    """hf:NAME or hf:FOLDER, with @SPLIT behind it unless it is train. Raises ConfigError if it cannot be read."""
    try:
        import datasets  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(f"Hugging Face datasets need their library: {install('datasets')}.") from error
    name, _, split = path.removeprefix(PREFIX).partition("@")
    try:
        if (
            Path(name).is_dir()
            and (Path(name) / "dataset_info.json").exists() | (Path(name) / "dataset_dict.json").exists()
        ):
            table = datasets.load_from_disk(name)
            table = table[split or "train"] if isinstance(table, datasets.DatasetDict) else table
        else:
            table = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # the library's errors are of many kinds
        raise ConfigError(f"The dataset {name} cannot be read: {type(error).__name__}: {str(error)[:300]}") from error
    image = next((n for n, f in table.features.items() if isinstance(f, datasets.Image)), None)
    text = caption_column or next((n for n in texts.COLUMNS if n in table.features), "")
    if image is None or text not in table.features:
        raise DataError(
            f"{name} has the columns {', '.join(table.features)}; a picture and a caption are needed. Name the "
            "caption's column with --data.captions."
        )
    table = table.cast_column(image, datasets.Image(decode=False))
    pairs, skipped = [], []
    for i, value in enumerate(table[text]):
        key = f"{name}/{i:09d}"
        try:
            captions, reason = texts.clean(value), "the caption is empty"
        except DataError as error:
            captions, reason = (), str(error)
        if captions:
            pairs.append(Pair(key, Row(table, image, i), captions))  # type: ignore[arg-type]
        else:
            skipped.append(Skip(key, reason))
    return Folder("Hugging Face dataset", tuple(pairs), tuple(skipped))
