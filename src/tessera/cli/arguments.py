"""Words and flags -> a config: the only user of tyro. It knows no command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeVar

from tessera.cli.screen import say
from tessera.config import TrainConfig
from tessera.errors import ConfigError
from tessera.presets import PRESETS

T = TypeVar("T")


def positionals(
    args: list[str], usage: str, more: str = "", count: int = 1, many: bool = False
) -> tuple[list[str], list[str]]:
    """The words before the first option, and the rest; --help alone explains the command."""
    words = next((args[:i] for i, a in enumerate(args) if a.startswith("-")), args)
    asks = {"-h", "--help"} & set(args)
    if asks and more and not words:
        say(
            f"usage: tessera {usage} [options]\n\n{more}\n\n"
            f"Options of a preset: tessera {usage.split()[0]} {next(iter(PRESETS))} --help"
        )
        sys.exit(0)
    if asks and len(words) < count:
        words = words + ["..."] * (count - len(words))
    if len(words) < count or (len(words) > count and not many):
        raise ConfigError(f"usage: tessera {usage} [options]; the names come before the options. {more}")
    return words, args[len([w for w in words if w != "..."]) :]


def options(default: T, args: list[str], usage: str, more: str = "") -> T:
    """The config with flags put over it; tyro prints help and names the nearest option for a wrong one."""
    import tyro

    return tyro.cli(
        type(default),
        args=args,
        default=default,
        prog=f"tessera {usage}",
        description=f"{(type(default).__doc__ or '').strip()} {more}",
        config=(tyro.conf.AvoidSubcommands,) if isinstance(default, TrainConfig) else (tyro.conf.OmitArgPrefixes,),
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file {path} cannot be read: {error}") from error
