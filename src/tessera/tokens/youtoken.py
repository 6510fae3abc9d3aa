"""YouTokenToMe's BPE models, read from their own file format; the package is not needed. It trains none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from tessera.errors import ConfigError

SPACE = "\u2581"
"""Begins every word."""
SPECIAL = ("<UNK>", "<PAD>", "<BOS>", "<EOS>")


class YouToken:
    """The same ids as `youtokentome.BPE(model).encode(text)`.

    The file: how many letters and rules; a line "code point, id" for each letter; a line "left, right, new id" for each
    merge, the earliest first; the ids of <UNK>, <PAD>, <BOS>, <EOS>. Raises ConfigError where it is something else.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            rows = [[int(word) for word in line.split()] for line in path.read_text("ascii").splitlines() if line]
            (letters, rules), last = rows[0], rows[-1]
            self.letters = {chr(code): i for code, i in rows[1 : 1 + letters]}
            merges = [(left, right, new) for left, right, new in rows[1 + letters : -1]]
            self.rank = {(left, right): (place, new) for place, (left, right, new) in enumerate(merges)}
            special = dict(zip(SPECIAL, last, strict=True))
            if len(merges) != rules:
                raise ValueError(f"{len(merges)} of {rules} merges")
        except (OSError, ValueError, OverflowError) as error:
            raise ConfigError(f"{path} is no YouTokenToMe model: {error}.") from error
        self.pieces = {i: letter for letter, i in self.letters.items()}
        self.pieces |= {i: name for name, i in special.items() if i >= 0}
        for left, right, new in merges:
            self.pieces[new] = self.pieces[left] + self.pieces[right]
        self.unknown = special["<UNK>"]
        self.vocab = len(self.pieces)
        self._word = lru_cache(maxsize=65536)(self._merge)

    def encode(self, text: str) -> list[int]:
        return [i for word in text.replace(SPACE, " ").split() for i in self._word(word)]

    def _merge(self, word: str) -> tuple[int, ...]:
        ids: list[int] = []
        for letter in SPACE + word:
            i = self.letters.get(letter, -1)
            if i >= 0 or not ids or ids[-1] >= 0:
                ids.append(i)  # letters that are unknown together are one <UNK>
        while True:
            pairs = [(self.rank[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in self.rank]
            if not pairs:
                return tuple(self.unknown if i < 0 else i for i in ids)
            (_, new), place = min(pairs)
            ids[place : place + 2] = [new]

    def decode(self, ids: Iterable[int]) -> str:
        """The caption; padding ids, which lie beyond the vocabulary, are left out."""
        return "".join(self.pieces.get(int(i), "") for i in ids).replace(SPACE, " ").strip()

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path, folder / "youtokentome.model")
        (folder / "config.json").write_text(json.dumps({"kind": "youtokentome"}), "utf-8")
