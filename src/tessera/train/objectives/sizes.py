"""Sizes that the settings leave to the tokenizers and the captions. It knows no network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tessera.config import TrainConfig
from tessera.data.split import Data
from tessera.errors import ConfigError
from tessera.tokens.text import TextTokenizer

LONGEST = 256
"""Text positions that are chosen without being asked for."""


def resolve(config: TrainConfig, data: Data, found: Mapping[str, int], text: TextTokenizer) -> TrainConfig:
    """The settings with the sizes that the tokenizers and the captions decide. Raises ConfigError where the settings
    ask for others."""
    model: Any = config.model
    found = {"text_vocab": text.vocab, **found}
    for name, value in found.items():
        if (asked := getattr(model, name)) not in (0, value):
            raise ConfigError(
                f"model.{name.replace('_', '-')} is {asked}, but the tokenizer has {value}; leave it at 0."
            )
    length = model.text_len
    if not length:
        longest = max(len(text.encode(c)) for p in data.pairs + data.held for c in p.captions)
        length = min(-(-longest // 8) * 8, LONGEST)
    return dataclasses.replace(config, model=dataclasses.replace(model, **found, text_len=length))
