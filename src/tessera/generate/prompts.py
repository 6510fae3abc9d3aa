"""Prompts -> tokens, and what is wrong with a prompt. It does not know pictures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from tessera.config import Request, TextToImageConfig, refuse_order
from tessera.config.drawing import refuse_bytes
from tessera.config.merging import short
from tessera.errors import CheckpointError, ConfigError, DataError
from tessera.tokens.text import TextTokenizer, pad


class Prompts:
    """A text tokenizer with the length and the vocabulary of the prior that reads its tokens."""

    def __init__(self, text: TextTokenizer, config: TextToImageConfig):
        self.text, self.config, self.length, self.vocab = text, config, config.text_len, config.text_vocab

    def accept(self, request: Request) -> None:
        """Raise where a request cannot be drawn; warn where its prompt is cut."""
        request.check()
        refuse_order(request.sampling, self.config)
        self.tokens([request.prompt], request.truncate)
        if lost := self.beyond(request.prompt):
            warnings.warn(f"The prompt is too long for the model; {short(lost)} is cut off.", stacklevel=3)

    def tokens(self, prompts: Sequence[str], truncate: bool = False) -> Int[Tensor, "B T"]:
        """On the CPU. Raises ConfigError where a prompt is empty, DataError where it is too long, unless `truncate`."""
        if any(not p.strip() for p in prompts):
            raise ConfigError("The prompt is empty: say what to draw.")
        ids = [self.encode(p) for p in prompts]
        for prompt, own in zip(prompts, ids, strict=True):
            if len(own) > self.length and not truncate:
                raise DataError(
                    f"The prompt {short(prompt)} has {len(own)} tokens and the model reads {self.length}: "
                    f"{short(self.beyond(prompt))} would be lost. "
                    "Shorten it, or cut it with --truncate (in Python truncate=True)."
                )
        return pad(ids, self.length, self.vocab, truncate, prompts)

    def beyond(self, prompt: str) -> str:
        """The end of a prompt that the model does not read, because it is too long."""
        lost = self.encode(prompt)[self.length :]
        return self.text.decode(lost) if lost else ""

    def encode(self, prompt: str) -> list[int]:
        refuse_bytes(prompt)
        ids = self.text.encode(prompt)
        if max(ids, default=0) >= self.vocab:
            raise CheckpointError(
                f"The text tokenizer gives the token {max(ids)} and the model has {self.vocab}: they do not belong "
                "together."
            )
        return ids

    def caption(self, ids: Sequence[int]) -> str:
        """The words of tokens; padding ids are left out."""
        return self.text.decode(i for i in ids if i < self.vocab)
