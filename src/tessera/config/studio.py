"""What `studio` may be told, beside what `serve` is. It knows no HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from tessera.config.serving import ServingConfig
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StudioConfig(ServingConfig):
    """A page on which to look at pictures, train, draw and judge; /v1 is as `tessera serve` has it."""

    runs: str = "runs"
    """Folder in which runs are made, and whose runs are drawn from. The gallery lies there too, in 'studio'."""
    pictures: tuple[str, ...] = (".",)
    """Folders below which a folder of pictures may be chosen; nothing outside of them is shown or read."""

    def rules(self) -> None:
        super().rules()
        if not self.pictures:
            raise ConfigError("Name at least one folder below which pictures may be chosen: --pictures FOLDER.")
