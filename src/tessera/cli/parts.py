"""Flags that choose a kind of part (--model.quantizer gumbel), and flags under earlier names. It knows no command."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tessera.config.merging import Kind, kind_of, merge
from tessera.config.renamed import RENAMED, Renewing
from tessera.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def chosen(config: T, args: list[str]) -> tuple[T, list[str]]:
    """The config with parts of the kinds that the words name, and the other words, every one under its name of now."""
    config, args = _kinds(config, args)
    return config, list(_renamed(config, args))


def choices(config: Any) -> str:
    """A line for --help on the parts that come in several kinds."""
    return " ".join(f"--{path} NAME chooses it: {', '.join(part.kinds())}." for path, part in _kinds_in(config))


def _parts(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every dataclass in a config, itself included, with its path: "", "model.", "model.quantizer."."""
    yield path, config
    for f in dataclasses.fields(config):
        if dataclasses.is_dataclass(value := getattr(config, f.name)):
            yield from _parts(value, f"{path}{f.name}.")


def _kinds_in(config: Any) -> list[tuple[str, Kind]]:
    """The parts whose kind a flag may choose. The kind of the model itself is the preset's."""
    return [(path[:-1], part) for path, part in _parts(config) if isinstance(part, Kind) and path.count(".") > 1]


def _kinds(config: T, args: list[str]) -> tuple[T, list[str]]:
    flags = {f"--{path}": path for path, _ in _kinds_in(config)}
    rest, words = [], iter(args)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag not in flags:
            rest.append(word)
            continue
        if not equals and not (value := next(words, "")):
            raise ConfigError(f"{flag} needs a name. {choices(config)}")
        changes: Any = value
        for name in reversed(flags[flag].split(".")):
            changes = {name: changes}
        config = merge(config, changes)
    return config, rest


def _renamed(config: Any, args: list[str]) -> Iterator[str]:
    """The words, with earlier names of flags replaced, and without those that have no effect any more."""
    known = {
        _flag(path, name): (moved, Renewing(type(part).__name__, path, partial(_kind_in, part), warned))
        for path, part in _parts(config)
        for name, moved in RENAMED.get(type(part).__name__, {}).items()
    }
    dropping = False
    for word in args:
        flag, equals, value = word.partition("=")
        off = ".no-" in flag
        flag = flag.replace("_", "-").replace(".no-", ".")
        if flag in known:
            moved, renewing = known[flag]
            dropping = not renewing.has_effect(flag.rpartition(".")[2], moved)
            word = _flag(renewing.where, moved.to, off) + equals + value
        elif word.startswith("--"):
            dropping = False
        if not dropping:
            yield word


def warned(line: str) -> None:
    """Tell of a setting under an earlier name."""
    warnings.warn(line, stacklevel=2)


def _flag(path: str, name: str, off: bool = False) -> str:
    """--model.quantizer.straight-through, or ....no-straight-through where it is switched off."""
    head, _, leaf = f"{path}{name}".replace("_", "-").rpartition(".")
    return f"--{head}{'.' if head else ''}{'no-' if off else ''}{leaf}"


def _kind_in(config: Any, part: str) -> str:
    return kind_of(getattr(config, part))
