"""What the settings of image tokenizers have in common that learn by pixels and by what a frozen network sees. They
know no kind of network."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeVar

from tessera.config.network import NetworkConfig
from tessera.config.perceptual import NoPerceptual, Perceptual
from tessera.config.ranges import NotNegative

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(NetworkConfig):
    """An image tokenizer that is trained by what becomes of its reconstructions."""

    may_change: ClassVar[tuple[str, ...]] = ("pixels", "reconstruction", "pixel_weight", "perceptual")
    """Settings under which the same weights mean the same: an imported network may be given others before it learns."""

    reconstruction: Literal["l1", "mse"] = "l1"
    """The loss of pixels 0 ... 1."""
    pixel_weight: NotNegative = 1.0
    """Weight of the loss of pixels."""
    perceptual: Perceptual = field(default_factory=NoPerceptual)
    """What is compared besides pixels: none, or lite0, which brings in what others trained on ImageNet."""


def adapted(old: C, new: object) -> C:
    """The settings of a network that has learned, with those of `new` that its weights do not depend on."""
    if not isinstance(old, AutoencoderConfig) or type(old) is not type(new):
        return old
    return dataclasses.replace(old, **{name: getattr(new, name) for name in old.may_change})
