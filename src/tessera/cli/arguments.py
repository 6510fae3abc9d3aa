"""The command line's words and flags as a config. The only module that imports tyro; it knows no command."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tessera.cli.parts import choices, chosen
from tessera.config import TrainConfig
from tessera.config.merging import check
from tessera.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def options(
    kind: type[T], args: list[str], command: str, dotted: bool = False, usual: Mapping[str, object] | None = None
) -> T:
    """A config from words and flags, checked. Fields without a default are the words. Parts of it are named in their
    flags where `dotted` (--data.path). `usual` are values in place of defaults.

    tyro prints the help, names what is missing, and names the nearest flag for a wrong one; where a wrong one stands
    before the words, it would take its value for a word.
    """
    import tyro

    fields = dataclasses.fields(kind)
    words = [f.name.upper() for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    if words and (not args or args[0].startswith("-")) and not {"-h", "--help"} & set(args):
        usage = f"usage: tessera {command} {' '.join(words)} [options]"
        raise ConfigError(f"{usage}; the names come before the options. Try: tessera {command} --help")
    names = tyro.conf.AvoidSubcommands if dotted else tyro.conf.OmitArgPrefixes
    marks = (tyro.conf.PositionalRequiredArgs, tyro.conf.PositionalMetavarFromFieldName, names)
    parse = partial(tyro.cli, kind, args=args, prog=f"tessera {command}", config=marks)
    missing = {f.name: tyro.MISSING for f in fields if f.name.upper() in words}
    config: T = parse(default=kind(**missing, **usual)) if usual else parse()
    check(config)
    return config


def run_of(args: list[str]) -> str:
    """The run folder, which is the first word; nothing where there is none yet."""
    return "" if not args or args[0].startswith("-") else args[0]


STARTS = "--config FILE reads settings from a TOML file; --dry-run only shows them; --profile profiles 8 steps."


def settings(default: TrainConfig, args: list[str]) -> TrainConfig:
    """Settings with flags put over them, checked. The help lists all of them, with the values of `default`."""
    import tyro

    default, args = chosen(default, args)
    config = tyro.cli(
        TrainConfig, args=args, default=default, prog="tessera train PRESET",
        description=f"{(TrainConfig.__doc__ or '').strip()} {STARTS} {choices(default)}",
        config=(tyro.conf.AvoidSubcommands,),
    )  # fmt: skip
    check(config)
    return config


def known(kind: type[T], args: list[str]) -> tuple[T, list[str]]:
    """A config from those flags that it knows, and the other words and flags."""
    import tyro

    return tyro.cli(kind, args=args, return_unknown_args=True, add_help=False)


def read_text(path: str) -> str:
    """A text file that the user named. Raises ConfigError if it cannot be read."""
    try:
        return Path(path).expanduser().read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The file {path} is not text in UTF-8; write it in UTF-8.") from error
