"""Frozen dataclasses as settings: strict merging, TOML, differences. It knows none of Tessera's settings."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from tessera.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """', did you mean ...?' where some known name is near, else nothing."""
    match = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def merge(base: T, changes: dict[str, Any], where: str = "") -> T:
    """`base` with `changes` (a nested dict, as TOML or JSON gives it) put over it.

    Strict: an unknown name or a value of the wrong type raises ConfigError that names the field and the nearest name.
    """
    hints = typing.get_type_hints(type(base))
    values = {}
    for name, value in changes.items():
        name = name.replace("-", "_")
        if name not in hints:
            raise ConfigError(f"There is no setting '{where}{name}'{nearest(name, hints)}.")
        old = getattr(base, name)
        if dataclasses.is_dataclass(old) and isinstance(value, dict):
            values[name] = merge(old, value, f"{where}{name}.")
        else:
            values[name] = _cast(value, hints[name], f"{where}{name}")
    return dataclasses.replace(base, **values)  # type: ignore[type-var]


def _cast(value: Any, kind: Any, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value in args:
            return value
        raise ConfigError(
            f"{where} is {value!r}{nearest(str(value), map(str, args))}; allowed: {', '.join(map(str, args))}."
        )
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) == len(value):
            return tuple(_cast(v, k, where) for v, k in zip(value, kinds, strict=True))
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    wanted = getattr(kind, "__name__", str(kind))
    raise ConfigError(f"{where} is {value!r}; it must be a {wanted}.")


def read_toml(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file. Raises ConfigError with the line where it is no TOML."""
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The settings file {path} is not TOML: {error}.") from error


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """The settings in which two configs differ, as 'name: old -> new' lines."""
    if not dataclasses.is_dataclass(old) or type(old) is not type(new):
        return [] if old == new else [f"{where[:-1]}: {old} -> {new}"]
    names = [f.name for f in dataclasses.fields(old)]
    return [line for n in names for line in differences(getattr(old, n), getattr(new, n), f"{where}{n}.")]
