"""Words and flags -> a config: the only user of tyro. It knows no command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeVar

from tessera.cli.screen import say
from tessera.config import EvaluateConfig, TrainConfig
from tessera.config.merging import check
from tessera.config.presets import PRESETS
from tessera.errors import ConfigError

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
    """The config with flags put over it, checked; tyro prints help and names the nearest option for a wrong one."""
    import tyro

    config = tyro.cli(
        type(default),
        args=args,
        default=default,
        prog=f"tessera {usage}",
        description=f"{(type(default).__doc__ or '').strip()} {more}",
        config=(tyro.conf.AvoidSubcommands,)
        if isinstance(default, TrainConfig | EvaluateConfig)
        else (tyro.conf.OmitArgPrefixes,),
    )
    check(config)
    return config


def read_text(path: str) -> str:
    """A text file that the user named. Raises ConfigError where it cannot be read."""
    try:
        return Path(path).expanduser().read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The file {path} is not text in UTF-8; write it in UTF-8.") from error
