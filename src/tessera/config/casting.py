"""Values held against types: the one place that validates settings and JSON. It knows no setting by name."""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import re
import reprlib
import types
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from tessera.errors import ConfigError


def nearest(name: str, known: Iterable[str]) -> str:
    """', did you mean ...?' where some known name is near, else nothing."""
    match = difflib.get_close_matches(short(name, ""), list(known), 1, 0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def short(value: object, quote: str = "'") -> str:
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


class Mismatch(ConfigError):
    """A value of another type, not merely one out of range."""


def cast(value: object, kind: Any, where: str) -> Any:
    """`value` as a `kind`: a type, Literal, union, Annotated with bounds, list, tuple, dict or dataclass of such.

    Numbers must be finite, bools are not numbers, unknown and missing fields are named. Raises ConfigError that names
    the place (`where`), what was found and what is wanted.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else _object(value, kind, where)
    if origin in FORMS:
        return FORMS[origin](value, get_args(kind), where)
    if kind is float and _is_number(value, numbers.Real):
        return _finite(value, where)
    if kind is int and _is_number(value, numbers.Integral):
        return int(typing.cast(int, value))
    if kind not in (int, float) and isinstance(value, kind):
        return value
    raise mismatch(value, kind, where)


def mismatch(value: object, kind: Any, where: str) -> Mismatch:
    """The error for a value of another type."""
    return Mismatch(f"{where or 'It'} is {short(value)}; it must be {_words(kind)}.")


def is_table(value: object) -> TypeGuard[dict[object, object]]:
    """Whether a value from TOML or JSON is a table of names and values."""
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[object] | tuple[object, ...]]:
    return isinstance(value, list | tuple)


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _finite(value: object, where: str) -> float:
    try:
        if math.isfinite(number := float(typing.cast(float, value))):
            return number
    except OverflowError:  # a whole number of hundreds of digits
        pass
    raise ConfigError(f"{where or 'It'} is {short(value)}; it must be a finite number.")


# A bound from annotated_types holds its number as a protocol of comparisons, which nothing here can look into.
RANGES: dict[type, Callable[[Any, Any], tuple[bool, str]]] = {
    Ge: lambda value, bound: (value >= bound.ge, f"at least {bound.ge}"),
    Gt: lambda value, bound: (value > bound.gt, f"above {bound.gt}"),
    Le: lambda value, bound: (value <= bound.le, f"at most {bound.le}"),
    Lt: lambda value, bound: (value < bound.lt, f"below {bound.lt}"),
    MinLen: lambda value, bound: (len(value) >= bound.min_length, f"at least {bound.min_length} long"),
    MaxLen: lambda value, bound: (len(value) <= bound.max_length, f"at most {bound.max_length} long"),
}
"""The bounds that a field's type may carry, as `Annotated[int, Ge(1)]`: whether one holds, and what it asks for."""


Args = tuple[Any, ...]
"""What stands between the brackets of a type."""


def _bounded(value: object, args: Args, where: str) -> object:
    value = cast(value, args[0], where)
    for bound in args[1:]:
        holds, wanted = RANGES[type(bound)](value, bound)
        if not holds:
            raise ConfigError(f"{where or 'It'} is {short(value)}; it must be {wanted}.")
    return value


def _literal(value: object, args: Args, where: str) -> object:
    if any(type(value) is type(a) and value == a for a in args):
        return value
    raise unknown(value, map(str, args), where)


def unknown(value: object, allowed: Iterable[str], where: str) -> ConfigError:
    """The error for a name that is not among those allowed."""
    allowed = list(allowed)
    near = nearest(short(value, ""), allowed) or "."
    return ConfigError(f"{where or 'It'} is {short(value)}{near} Allowed: {', '.join(allowed)}.")


def _one_of(value: object, args: Args, where: str) -> object:
    refusals: list[ConfigError] = []
    for kind in args:
        try:
            return cast(value, kind, where)
        except ConfigError as error:
            refusals.append(error)
    raise next((r for r in refusals if not isinstance(r, Mismatch)), mismatch(value, Union[args], where))  # noqa: UP007


def _listed(value: object, args: Args, where: str) -> list[object]:
    if not _is_list(value):
        raise mismatch(value, types.GenericAlias(list, args), where)
    return [cast(v, args[0], f"{where}[{i}]") for i, v in enumerate(value)]


def _tupled(value: object, args: Args, where: str) -> tuple[object, ...]:
    if args[-1] is Ellipsis:
        return tuple(_listed(value, args[:1], where))
    if not _is_list(value) or len(value) != len(args):
        raise mismatch(value, types.GenericAlias(tuple, args), where)
    return tuple(cast(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, args, strict=True)))


def _table(value: object, args: Args, where: str) -> dict[object, object]:
    if not is_table(value):
        raise mismatch(value, dict, where)
    prefix = f"{where}." if where else ""
    return {
        cast(k, args[0], f"a name in {where or 'it'}"): cast(v, args[1], prefix + short(k, ""))
        for k, v in value.items()
    }


FORMS: dict[Any, Callable[[object, Args, str], object]] = {
    Annotated: _bounded,
    Literal: _literal,
    Union: _one_of,
    types.UnionType: _one_of,
    list: _listed,
    tuple: _tupled,
    dict: _table,
}


def _object(value: object, kind: type, where: str) -> object:
    """A dataclass from a table: every field without a default must be there, no other may be."""
    if not is_table(value):
        raise mismatch(value, kind, where)
    hints = typing.get_type_hints(kind, include_extras=True)
    prefix = f"{where}." if where else ""
    for name in value:
        if name not in hints:
            raise ConfigError(f"'{prefix}{short(name, '')}' is unknown{nearest(str(name), hints) or '.'}")
    for f in dataclasses.fields(kind):
        if f.name not in value and f.default is f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"'{prefix}{f.name}' is missing.")
    return kind(**{str(name): cast(v, hints[str(name)], f"{prefix}{name}") for name, v in value.items()})


WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    type(None): "null",
}
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


def seconds(text: str) -> float:
    """A duration in seconds, from 90s, 20m, 1.5h, 2d, or a number of seconds; infinite where empty."""
    if not text:
        return float("inf")
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text.lower())
    found = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0.0
    if not 0 < found < 1e9:
        raise ConfigError(f"{short(text)} is not a duration; write for example 90s, 20m or 1.5h.")
    return found
