"""DALLE-pytorch's TextImageDataset over this house's folders and pictures."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from tessera.data.find import find
from tessera.data.pictures import random_square, read, resized
from tessera.errors import DataError


class TextImageDataset(Dataset):
    """(text ids [text_len], picture [C, S, S] in 0 ... 1): a random caption, a random crop.

    One folder with pictures and texts side by side or in two trees below it; or two folders, one of pictures and one of
    texts, in either order, or as image_folder= and text_folder=. Pairs are matched by path, so equal names in two
    folders are two pairs. Unreadable pictures are skipped. Raises DataError if none can be read.
    """

    def __init__(self, folder: str | Path | None = None, *others: Any, image_folder: str | Path | None = None,
                 text_folder: str | Path | None = None, **options: Any):  # fmt: skip
        folders = [Path(f) for f in (folder, image_folder, text_folder) if f is not None]
        while others and isinstance(others[0], str | Path):
            folders, others = [*folders, Path(others[0])], others[1:]
        known = {"text_len": 256, "image_size": 128, "truncate_captions": False, "resize_ratio": 0.75,
                 "transparent": False, "tokenizer": None, "shuffle": False}  # fmt: skip
        unknown = options.keys() - known.keys()
        if unknown or len(others) > len(known):
            raise TypeError(f"TextImageDataset has no argument {', '.join(sorted(unknown)) or others[len(known)]}")
        values = {**known, **dict(zip(known, others, strict=False)), **options}
        self.text_len, self.image_size, self.truncate_captions = (values[k] for k in list(known)[:3])
        self.resize_ratio, self.channels = values["resize_ratio"], 4 if values["transparent"] else 3
        self.tokenizer, self.shuffle = values["tokenizer"], values["shuffle"]
        if self.tokenizer is None:
            from tessera.compat.dalle_pytorch.tokenizer import tokenizer

            self.tokenizer = tokenizer
        if not folders:
            raise DataError("TextImageDataset needs a folder.")
        pictures, texts = (folders[0], "") if len(folders) == 1 else _told_apart(*folders[:2])
        self.pairs = find(str(pictures), texts).pairs
        self.keys = [pair.key for pair in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, ind: int) -> tuple[Tensor, Tensor]:
        reason = ""
        for step in range(len(self.pairs)):
            other = random.randrange(len(self.pairs)) if self.shuffle and step else (ind + step) % len(self.pairs)
            pair = self.pairs[other]
            try:
                picture = read(pair.image, self.channels)
            except DataError as error:
                reason = f"{pair.key}: {error}"
                print(f"Skipped {reason}")
                continue
            return self._text(pair.key, random.choice(pair.captions)), self._crop(picture)
        raise DataError(f"None of the {len(self.pairs)} pictures can be read; the last one: {reason}")

    def _text(self, key: str, caption: str) -> Tensor:
        try:
            return self.tokenizer.tokenize(caption, self.text_len, truncate_text=self.truncate_captions).squeeze(0)
        except RuntimeError as error:
            raise DataError(f"{key}: {error}. Give truncate_captions=True to cut such captions.") from error

    def _crop(self, picture: Tensor) -> Tensor:
        noise = np.random.default_rng(random.getrandbits(64))
        _, height, width = picture.shape
        return resized(picture, random_square(height, width, self.resize_ratio, noise), self.image_size).float() / 255


def _told_apart(first: Path, second: Path) -> tuple[Path, str]:
    """(pictures, texts), whichever came first."""
    return (first, str(second)) if _has_picture(first) else (second, str(first))


def _has_picture(folder: Path) -> bool:
    from tessera.data.pictures import SUFFIXES

    return any(p.suffix.lower() in SUFFIXES for p in folder.rglob("*"))
