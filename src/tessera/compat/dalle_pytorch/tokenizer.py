"""DALLE-pytorch's text tokenizers: encode, decode, tokenize; padding is 0."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from tessera.errors import ConfigError
from tessera.tokens import text as text_tokens
from tessera.tokens.text import BPE, CLIP_VOCAB, TextTokenizer

START, END = CLIP_VOCAB - 2, CLIP_VOCAB - 1


class Tokenizer:
    """One of our tokenizers with the original's methods."""

    dropped: frozenset[int] = frozenset({0})
    """Ids that `decode` leaves out."""

    def __init__(self, inner: TextTokenizer):
        self.inner, self.vocab_size = inner, inner.vocab

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text)

    def decode(self, tokens: Tensor | Sequence[int], pad_tokens: Collection[int] = frozenset()) -> str:
        ids = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        return self.inner.decode(i for i in ids if i not in self.dropped and i not in pad_tokens)

    def tokenize(self, texts: str | Sequence[str], context_length: int = 256, truncate_text: bool = False) -> Tensor:
        """[b, context_length]. Raises RuntimeError if a text is longer, unless `truncate_text`."""
        texts = [texts] if isinstance(texts, str) else texts
        rows = torch.zeros(len(texts), context_length, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            ids = self.inner.encode(text)
            if len(ids) > context_length and not truncate_text:
                raise RuntimeError(f"Input {text} is too long for context length {context_length}")
            row[: len(ids)] = torch.tensor(ids[:context_length], dtype=torch.long)
        return rows


class SimpleTokenizer(Tokenizer):
    """CLIP's 49,408-entry BPE. Its merges come from the given path, or from an installed package that has them."""

    def __init__(self, bpe_path: str | None = None):
        super().__init__(text_tokens.clip_bpe(Path(bpe_path) if bpe_path else text_tokens.find_clip_merges()))

    def decode(  # type: ignore[override]
        self, tokens: Tensor | Sequence[int], remove_start_end: bool = True, pad_tokens: Collection[int] = frozenset()
    ) -> str:
        """With a space after the last word, as in the original."""
        assert isinstance(self.inner, BPE)
        ids = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        marks = {START, END, 0} if remove_start_end else set()
        return self.inner.inner.decode(
            [i for i in ids if i not in marks and i not in pad_tokens], skip_special_tokens=False
        )


class HugTokenizer(Tokenizer):
    """A tokenizer.json of HuggingFace tokenizers."""

    def __init__(self, bpe_path: str | Path):
        super().__init__(text_tokens.find(str(_present(bpe_path))))


class ChineseTokenizer(Tokenizer):
    """bert-base-chinese: from the given path, else from the hub."""

    def __init__(self, path: str = "chinese"):
        super().__init__(text_tokens.find(path))


class YttmTokenizer(Tokenizer):
    """A YouTokenToMe model."""

    def __init__(self, bpe_path: str | Path):
        super().__init__(text_tokens.YouToken(_present(bpe_path)))

    def encode(self, text: str | Sequence[str]) -> list[int] | list[Tensor]:
        """The ids of a text, or a tensor for each of several texts, as in the original."""
        if isinstance(text, str):
            return super().encode(text)
        return [torch.tensor(super(YttmTokenizer, self).encode(t), dtype=torch.long) for t in text]


def _present(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise ConfigError(f"BPE json path {path} does not exist.")
    return Path(path)


@cache
def _simple() -> SimpleTokenizer:
    return SimpleTokenizer()


def __getattr__(name: str) -> SimpleTokenizer:
    if name == "tokenizer":  # made at its first use: CLIP's merges may be absent
        return _simple()
    raise AttributeError(name)
