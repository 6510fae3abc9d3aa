"""Frozen dataclasses as settings: strict merging, validation, TOML and JSON. It knows no setting by name."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import numbers
import reprlib
import tomllib
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from tessera.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """', did you mean ...?' where some known name is near, else nothing."""
    match = difflib.get_close_matches(short(name, ""), list(known), 1, 0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def merge(base: T, changes: dict[str, Any], where: str = "") -> T:
    """`base` with `changes` (a nested dict, as TOML or JSON gives it) put over it.

    Strict: an unknown name, a value of the wrong type or one out of its range raises ConfigError that names the field
    and, where there is one, the nearest name.
    """
    if not isinstance(changes, dict):
        raise _mismatch(changes, dict, where[:-1] or "The table of settings")
    hints = typing.get_type_hints(type(base), include_extras=True)
    values = {}
    for name, value in changes.items():
        name = str(name).replace("-", "_")
        if name not in hints:
            near = nearest(name, hints) or "."
            raise ConfigError(f"There is no setting '{where}{short(name, '')}'{near}")
        old = getattr(base, name)
        if dataclasses.is_dataclass(old) and isinstance(value, dict):
            values[name] = merge(old, value, f"{where}{name}.")
        else:
            values[name] = cast(value, hints[name], f"{where}{name}")
    return dataclasses.replace(base, **values)  # type: ignore[type-var]


class Checked:
    """A dataclass of settings that says what is wrong with it: each field's type and range, then its own `rules`."""

    def check(self) -> None:
        """Raise ConfigError, in a sentence that names the setting, where something cannot be."""
        check(self)

    def rules(self) -> None:
        """What no type can say: settings that contradict each other. Every value is of its type and in its range."""


def check(config: Any) -> None:
    """Hold every field of a dataclass, and of those inside it, against its type and range, then ask for their `rules`.

    For values that came by flags or from Python; `merge` and `cast` hold theirs against types and ranges themselves.
    """
    _ranges(config, "")
    _rules(config)


def _ranges(config: Any, where: str) -> None:
    hints = typing.get_type_hints(type(config), include_extras=True)
    for f in dataclasses.fields(config):
        value, name = getattr(config, f.name), f"{where}{f.name.replace('_', '-')}"
        cast(value, hints[f.name], name)
        if dataclasses.is_dataclass(value):
            _ranges(value, f"{name}.")


def _rules(config: Any) -> None:
    for f in dataclasses.fields(config):
        if dataclasses.is_dataclass(value := getattr(config, f.name)):
            _rules(value)
    if isinstance(config, Checked):
        config.rules()


RANGES: dict[type, Callable[[Any, Any], tuple[bool, str]]] = {
    Ge: lambda value, bound: (value >= bound.ge, f"at least {bound.ge}"),
    Gt: lambda value, bound: (value > bound.gt, f"above {bound.gt}"),
    Le: lambda value, bound: (value <= bound.le, f"at most {bound.le}"),
    Lt: lambda value, bound: (value < bound.lt, f"below {bound.lt}"),
    MinLen: lambda value, bound: (len(value) >= bound.min_length, f"at least {bound.min_length} long"),
    MaxLen: lambda value, bound: (len(value) <= bound.max_length, f"at most {bound.max_length} long"),
}
"""The bounds that a field's type may carry, as `Annotated[int, Ge(1)]`: whether one holds, and what it asks for."""


class Mismatch(ConfigError):
    """A value of another type, not merely one out of range."""


def cast(value: Any, kind: Any, where: str) -> Any:
    """`value` as a `kind`: a type, Literal, union, Annotated with bounds, list, tuple, dict or dataclass of such.

    The one place that validates settings and JSON. Numbers must be finite, bools are not numbers, unknown and missing
    fields are named. Raises ConfigError that names the place (`where`), what was found and what is wanted.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else _object(value, kind, where)
    if origin in FORMS:
        return FORMS[origin](value, get_args(kind), where)
    if kind is float and _number(value, numbers.Real):
        return _finite(value, where)
    if kind is int and _number(value, numbers.Integral):
        return int(value)
    if kind not in (int, float) and isinstance(value, typing.cast(type, kind)):
        return value
    raise _mismatch(value, kind, where)


def _finite(value: Any, where: str) -> float:
    try:
        if math.isfinite(number := float(value)):
            return number
    except OverflowError:  # a whole number of hundreds of digits
        pass
    raise ConfigError(f"{where or 'It'} is {short(value)}; it must be a finite number.")


def _number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _bounded(value: Any, args: tuple[Any, ...], where: str) -> Any:
    value = cast(value, args[0], where)
    for bound in args[1:]:
        holds, wanted = RANGES[type(bound)](value, bound)
        if not holds:
            raise ConfigError(f"{where or 'It'} is {short(value)}; it must be {wanted}.")
    return value


def _literal(value: Any, args: tuple[Any, ...], where: str) -> Any:
    if any(type(value) is type(a) and value == a for a in args):
        return value
    near = nearest(short(value, ""), map(str, args)) or "."
    raise ConfigError(f"{where or 'It'} is {short(value)}{near} Allowed: {', '.join(map(str, args))}.")


def _one_of(value: Any, args: tuple[Any, ...], where: str) -> Any:
    refusals = []
    for kind in args:
        try:
            return cast(value, kind, where)
        except ConfigError as error:
            refusals.append(error)
    raise next((r for r in refusals if not isinstance(r, Mismatch)), _mismatch(value, Union[args], where))  # noqa: UP007


def _listed(value: Any, args: tuple[Any, ...], where: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _mismatch(value, list[args], where)
    return [cast(v, args[0], f"{where}[{i}]") for i, v in enumerate(value)]


def _tupled(value: Any, args: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if args[-1] is Ellipsis:
        return tuple(_listed(value, args[:1], where))
    if not isinstance(value, list | tuple) or len(value) != len(args):
        raise _mismatch(value, tuple[args], where)
    return tuple(cast(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, args, strict=True)))


def _table(value: Any, args: tuple[Any, ...], where: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise _mismatch(value, dict, where)
    prefix = f"{where}." if where else ""
    return {
        cast(k, args[0], f"a name in {where or 'it'}"): cast(v, args[1], prefix + short(k, ""))
        for k, v in value.items()
    }


FORMS: dict[Any, Callable[[Any, tuple[Any, ...], str], Any]] = {
    Annotated: _bounded,
    Literal: _literal,
    Union: _one_of,
    types.UnionType: _one_of,
    list: _listed,
    tuple: _tupled,
    dict: _table,
}


def _object(value: Any, kind: Any, where: str) -> Any:
    """A dataclass from a table: every field without a default must be there, no other may be."""
    if not isinstance(value, dict):
        raise _mismatch(value, kind, where)
    hints = typing.get_type_hints(kind, include_extras=True)
    prefix = f"{where}." if where else ""
    for name in value:
        if name not in hints:
            raise ConfigError(f"'{prefix}{short(name, '')}' is unknown{nearest(str(name), hints) or '.'}")
    for f in dataclasses.fields(kind):
        if f.name not in value and f.default is f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"'{prefix}{f.name}' is missing.")
    return kind(**{name: cast(v, hints[name], f"{prefix}{name}") for name, v in value.items()})


WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
"""How a sentence calls a type."""


def _words(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, args)))
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (list, tuple):
        count = "" if origin is list or args[-1] is Ellipsis else f" of {len(args)}"
        return f"a list{count}, each {_words(args[0])}"
    if origin is dict or kind is dict or dataclasses.is_dataclass(kind):
        return "a table of names and values"
    return WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _mismatch(value: Any, kind: Any, where: str) -> Mismatch:
    return Mismatch(f"{where or 'It'} is {short(value)}; it must be {_words(kind)}.")


def short(value: Any, quote: str = "'") -> str:
    """A value fit for a sentence, however large it is; a text without its quotes where `quote` is empty."""
    if isinstance(value, str) and not quote:
        return value if len(value) <= 60 else f"{value[:57]}..."
    try:
        text = SHORT.repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:97]}..."


SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 60


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
        return cast(json.loads(path.read_text("utf-8-sig")), kind, "")
    except ConfigError as error:
        raise error if str(path) in str(error) else ConfigError(f"{path}: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    except RecursionError as error:
        raise ConfigError(f"{path} cannot be read as JSON: it is nested too deeply.") from error
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}.") from error


def read_toml(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file. Raises ConfigError with the line where it is not TOML."""
    if Path(path).exists() and not Path(path).is_file():
        raise ConfigError(f"The settings file {path} is not a regular file.")
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # a number of thousands of digits is not a TOMLDecodeError
        raise ConfigError(f"The settings file {path} is not TOML: {error}.") from error
    except RecursionError as error:
        raise ConfigError(f"The settings file {path} cannot be read: it is nested too deeply.") from error


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """The settings in which two configs differ, as 'name: old -> new' lines."""
    if not dataclasses.is_dataclass(old) or type(old) is not type(new):
        return [] if old == new else [f"{where[:-1]}: {old} -> {new}"]
    names = [f.name for f in dataclasses.fields(old)]
    return [line for n in names for line in differences(getattr(old, n), getattr(new, n), f"{where}{n}.")]
