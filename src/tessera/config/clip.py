"""The settings of the judge. They know no training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from tessera.config.network import MODELS, NetworkConfig
from tessera.config.ranges import Channels, Depth, Pixels, TextLength, Vocabulary, Width
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CLIPConfig(NetworkConfig):
    """The judge: scores a picture against a sentence (CLIP, Radford et al. 2021), as DALLE-pytorch built it."""

    text_vocab: Vocabulary = 0
    """Size of the text vocabulary without padding; 0 takes it from the text tokenizer."""
    text_len: TextLength = 0
    """Text tokens per caption, padded; 0 chooses it from the captions."""
    pixels: Pixels = 64
    """Side of the square pictures, a multiple of patch."""
    patch: Pixels = 8
    """Side of a patch."""
    channels: Channels = 3
    """1 grey, 2 grey + alpha, 3 colour, 4 colour + alpha."""
    dim_text: Width = 256
    """Width of the text encoder."""
    dim_image: Width = 256
    """Width of the picture encoder."""
    dim_latent: Width = 256
    """Width of the embeddings that are compared."""
    text_depth: Depth = 4
    """Layers of the text encoder."""
    image_depth: Depth = 4
    """Layers of the picture encoder."""
    text_heads: Annotated[int, Ge(1), Le(1_024)] = 4
    image_heads: Annotated[int, Ge(1), Le(1_024)] = 4
    head_dim: Annotated[int, Ge(1), Le(8_192)] = 64
    """Width of a head."""

    usual: ClassVar[Mapping[str, int]] = {"text_vocab": 4096, "text_len": 64}

    def rules(self) -> None:
        if self.pixels % self.patch:
            raise ConfigError(f"model.pixels is {self.pixels}; it must be a multiple of model.patch ({self.patch}).")


MODELS["clip"] = CLIPConfig
