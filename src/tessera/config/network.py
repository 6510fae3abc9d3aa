"""What the settings of every kind of network must provide. It knows no kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tessera.config.merging import Kind


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Kind):
    """What the settings of every kind of network that can be trained must provide."""

    needs_codes: ClassVar[bool] = False
    """Whether it learns from the codes of an image tokenizer."""
    usual: ClassVar[Mapping[str, int]] = {}
    """Sizes that a run takes from its data where they are 0, with usual values."""

    @classmethod
    def kinds(cls) -> Mapping[str, type[NetworkConfig]]:
        return MODELS


MODELS: dict[str, type[NetworkConfig]] = {}
"""By the name that settings give it; each kind adds itself."""
