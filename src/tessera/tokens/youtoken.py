"""YouTokenToMe's BPE models, read from their own file format without the package. It trains none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from tessera.errors import ConfigError
from tessera.files.atomic import write_whole

SPACE = "\u2581"
"""Begins every word."""
SPECIAL = ("<UNK>", "<PAD>", "<BOS>", "<EOS>")


LONGEST = 10_000
"""Longest piece, in letters; merges of merges could double it at every line."""


class YouToken:
    """The same ids as `youtokentome.BPE(model).encode(text)`.

    The file: how many letters and rules; a line "code point, id" for each letter; a line "left, right, new id" for each
    merge, the earliest first; the ids of <UNK>, <PAD>, <BOS>, <EOS>. Raises ConfigError for any other file.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            rows = [[int(word) for word in line.split()] for line in path.read_text("ascii").splitlines() if line]
            (letters, rules), last = rows[0], rows[-1]
            self.letters = {chr(code): i for code, i in rows[1 : 1 + letters]}
            merges = [(left, right, new) for left, right, new in rows[1 + letters : -1]]
            self.rank = {(left, right): (place, new) for place, (left, right, new) in enumerate(merges)}
            special: dict[str, int] = dict(zip(SPECIAL, last, strict=True))
            if len(merges) != rules:
                raise ValueError(f"{len(merges)} of {rules} merges")
            self.pieces = _pieces(self.letters, special, merges)
        except (OSError, ValueError, OverflowError, LookupError) as error:
            raise ConfigError(f"{path} is not a YouTokenToMe model: {error}.") from error
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
                ids.append(i)  # unknown letters side by side are one <UNK>
        while True:
            pairs = [(self.rank[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in self.rank]
            if not pairs:
                return tuple(self.unknown if i < 0 else i for i in ids)
            (_, new), place = min(pairs)
            ids[place : place + 2] = [new]

    def decode(self, ids: Iterable[int]) -> str:
        """The caption, without padding ids (those beyond the vocabulary)."""
        return "".join(self.pieces.get(int(i), "") for i in ids).replace(SPACE, " ").strip()

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path, folder / "youtokentome.model")
        write_whole(folder / "config.json", json.dumps({"kind": "youtokentome"}))


def _pieces(letters: dict[str, int], special: dict[str, int], merges: list[tuple[int, int, int]]) -> dict[int, str]:
    """What each id stands for. Raises ValueError or LookupError if ids are missing or a piece is too long."""
    pieces = {i: letter for letter, i in letters.items()}
    pieces |= {i: name for name, i in special.items() if i >= 0}
    for left, right, new in merges:
        pieces[new] = pieces[left] + pieces[right]
        if len(pieces[new]) > LONGEST:
            raise ValueError(f"the piece {new} has more than {LONGEST} letters")
    if set(pieces) != set(range(len(pieces))):
        raise ValueError(f"its {len(pieces)} ids do not run from 0 to {len(pieces) - 1}")
    return pieces
