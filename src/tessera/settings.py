"""Frozen dataclasses as settings: strict merging, validation, TOML and JSON. It knows no setting by name."""

from __future__ import annotations

import dataclasses
import difflib
import json
import operator
import tomllib
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from tessera.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """', did you mean ...?' where some known name is near, else nothing."""
    match = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def merge(base: T, changes: dict[str, Any], where: str = "") -> T:
    """`base` with `changes` (a nested dict, as TOML or JSON gives it) put over it.

    Strict: an unknown name, a value of the wrong type or one out of its range raises ConfigError that names the field
    and, where there is one, the nearest name.
    """
    if not isinstance(changes, dict):
        raise ConfigError(
            f"{where[:-1] or 'The settings'} are {_short(changes)}; a table of names and values is wanted."
        )
    hints = typing.get_type_hints(type(base), include_extras=True)
    values = {}
    for name, value in changes.items():
        name = str(name).replace("-", "_")
        if name not in hints:
            raise ConfigError(f"There is no setting '{where}{name}'{nearest(name, hints)}.")
        old = getattr(base, name)
        if dataclasses.is_dataclass(old) and isinstance(value, dict):
            values[name] = merge(old, value, f"{where}{name}.")
        else:
            values[name] = cast(value, hints[name], f"{where}{name}")
    return dataclasses.replace(base, **values)  # type: ignore[type-var]


def check(config: Any, where: str = "") -> None:
    """Hold every field of a dataclass, and of those inside it, against its type and range.

    For values that did not come through `merge`: flags and Python. Raises ConfigError that names the field.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            check(value, f"{where}{f.name}.")
        else:
            cast(value, hints[f.name], f"{where}{f.name}")


RANGES: dict[type, tuple[str, Callable[[Any, Any], bool], str]] = {
    Ge: ("ge", operator.ge, "at least"),
    Gt: ("gt", operator.gt, "above"),
    Le: ("le", operator.le, "at most"),
    Lt: ("lt", operator.lt, "below"),
}
"""The bounds that a field's type may carry, as `Annotated[int, Ge(1)]`."""


def cast(value: Any, kind: Any, where: str) -> Any:
    """`value` as a `kind`: a type, Literal, union, Annotated with bounds, list, tuple, dict or dataclass of such.

    The one place that validates settings and JSON. Numbers must be finite, bools are not ints, unknown and missing
    fields are named. Raises ConfigError that names the place (`where`), what was found and what is wanted.
    """
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        value = cast(value, args[0], where)
        for bound in args[1:]:
            attribute, holds, words = RANGES[type(bound)]
            limit = getattr(bound, attribute)
            if not holds(value, limit):
                raise ConfigError(f"{where} is {_short(value)}; it must be {words} {limit}.")
        return value
    if origin is Literal:
        if any(type(value) is type(a) and value == a for a in args):
            return value
        raise ConfigError(
            f"{where} is {_short(value)}{nearest(str(value), map(str, args))}; allowed: {', '.join(map(str, args))}."
        )
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, args, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else _object(value, kind, where)
    if origin in (tuple, list) and isinstance(value, list | tuple):
        kinds = [args[0]] * len(value) if origin is list or args[-1] is Ellipsis else list(args)
        if len(kinds) == len(value):
            return origin(cast(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, kinds, strict=True)))
    if origin is dict and isinstance(value, dict):
        return {cast(k, args[0], where): cast(v, args[1], f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not -HUGE < value < HUGE:  # neither does nan
            raise ConfigError(f"{where} is {_short(value)}; it must be a finite number.")
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    wanted = getattr(kind, "__name__", str(kind)) if origin is None else str(kind).replace("typing.", "")
    raise ConfigError(f"{where} is {_short(value)}; it must be {NAMES.get(wanted, wanted)}.")


HUGE = 1e300
NAMES = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "NoneType": "null"}


def _one_of(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    refusals = []
    for kind in kinds:
        try:
            return cast(value, kind, where)
        except ConfigError as error:
            refusals.append(error)
    raise refusals[0]


def _object(value: Any, kind: Any, where: str) -> Any:
    """A dataclass from a table: every field without a default must be there, no other may be."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where or 'It'} is {_short(value)}; a table of names and values is wanted.")
    hints = typing.get_type_hints(kind, include_extras=True)
    prefix = f"{where}." if where else ""
    for name in value:
        if name not in hints:
            raise ConfigError(f"'{prefix}{_short(name)}' is unknown{nearest(str(name), hints)}.")
    for f in dataclasses.fields(kind):
        if f.name not in value and f.default is f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"'{prefix}{f.name}' is missing.")
    return kind(**{name: cast(v, hints[name], f"{prefix}{name}") for name, v in value.items()})


def _short(value: Any) -> str:
    """A value fit for a sentence, however long it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of over 4,300 digits, or a deep nest
        return f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= 60 else f"{text[:57]}..."


LARGEST = 2**30
"""Bytes of the largest JSON file that is read; the index of ten million pictures is about as large."""


def read_json(path: Path, kind: Any = Any) -> Any:
    """What a JSON file holds, as a `kind` (see `cast`).

    Raises ConfigError that names the file where it is missing, too large, not JSON, nested too deeply, or of another
    form; callers that know better what such a file means turn it into their own error.
    """
    try:
        if not path.is_file():
            raise ConfigError(f"{path} is not there, or is not a regular file.")
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path} has more than {LARGEST:,} bytes; this is not a file that Tessera wrote.")
        value = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error or type(error).__name__}.") from error
    try:
        return cast(value, kind, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {str(error).lstrip()}") from error


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
