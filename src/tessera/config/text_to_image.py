"""The settings of the prior. They know no training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tessera.config.network import MODELS, NetworkConfig
from tessera.config.ranges import GridSide, NotNegative, TextLength, Vocabulary
from tessera.config.transformer import TransformerConfig
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TextToImageConfig(NetworkConfig):
    """The prior: text tokens, then image codes, one after the other (Ramesh et al. 2021, section 2.2)."""

    text_vocab: Vocabulary = 0
    """Size of the text vocabulary without padding; 0 takes it from the text tokenizer."""
    text_len: TextLength = 0
    """Text tokens per caption, padded; 0 chooses it from the captions."""
    image_vocab: Vocabulary = 0
    """How many codes there are; 0 takes it from the image tokenizer."""
    grid: GridSide = 0
    """Side of the grid of codes; 0 takes it from the image tokenizer."""
    image_weight: NotNegative = 7.0
    """loss = (text + image_weight * image) / (1 + image_weight)."""
    learn_padding: bool = False
    """Count padding tokens in the text loss, as DALL-E 1 did."""
    tied: bool = False
    """Embeddings and output heads share their weights."""
    transformer: TransformerConfig = field(default_factory=TransformerConfig)

    needs_codes: ClassVar[bool] = True
    usual: ClassVar[Mapping[str, int]] = {"text_vocab": 4096, "text_len": 64, "image_vocab": 1000, "grid": 16}

    def rules(self) -> None:
        if "all" in self.transformer.patterns:
            raise ConfigError("patterns has 'all', which shows a prior the codes that it must predict; try 'full'.")


MODELS["t2i"] = TextToImageConfig
