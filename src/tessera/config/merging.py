"""Frozen dataclasses as settings: strict merging, validation, TOML and JSON. It knows no setting by name."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tessera.config.casting import cast, is_table, mismatch, nearest, short, unknown
from tessera.config.renamed import Renewing
from tessera.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "Checked", "Kind", "cast", "check", "differences", "kind_of", "merge", "nearest", "read_json", "read_toml", "short",
    "to_dict",
]  # fmt: skip

T = TypeVar("T", bound="DataclassInstance")
Notice = Callable[[str], None]


class Checked:
    """A dataclass of settings that says what is wrong with it: each field's type and range, then its own `rules`."""

    def check(self) -> None:
        """Raise ConfigError, in a sentence that names the setting, where something cannot be."""
        check(typing.cast("DataclassInstance", self))

    def rules(self) -> None:
        """What no type can say: settings that contradict each other. Every value is of its type and in its range."""


@dataclass(frozen=True, kw_only=True)
class Kind(Checked):
    """Settings that come in several kinds, of which each has its own fields. TOML and JSON name the kind: kind = "fsq",
    or the name alone, where the fields keep their defaults."""

    @classmethod
    def kinds(cls) -> Mapping[str, type[Self]]:
        """The table of all kinds, by name."""
        raise NotImplementedError


def kind_of(part: object) -> str:
    """The name of a part's kind."""
    assert isinstance(part, Kind)
    return next(name for name, cls in part.kinds().items() if type(part) is cls)


def merge(base: T, changes: Mapping[str, Any], where: str = "", notice: Notice = lambda line: None) -> T:
    """`base` with `changes` (a nested dict, as TOML or JSON gives it) put over it.

    Strict: an unknown name, a value of the wrong type or one out of its range raises ConfigError that names the field
    and, where there is one, the nearest name. Settings under an earlier name are understood, and `notice` is told.
    """
    given: object = changes
    if not is_table(given):
        raise mismatch(given, dict, where[:-1] or "The table of settings")
    hints, names = typing.get_type_hints(type(base), include_extras=True), {f.name for f in dataclasses.fields(base)}
    found = {str(name).replace("-", "_"): value for name, value in given.items()}
    kind: Callable[[str], object] = lambda part: _kind_asked(getattr(base, part), found.get(part))
    found = Renewing(type(base).__name__, where, kind, notice).changes(found)
    values: dict[str, object] = {}
    for name, value in found.items():
        if name not in names:
            near = nearest(name, names) or "."
            raise ConfigError(f"There is no setting '{where}{short(name, '')}'{near}")
        old = getattr(base, name)
        if isinstance(old, Kind) and (is_table(value) or isinstance(value, str)):
            values[name] = _merge_kind(old, value, f"{where}{name}", notice)
        elif dataclasses.is_dataclass(old) and not isinstance(old, type) and is_table(value):
            values[name] = merge(old, typing.cast("dict[str, Any]", value), f"{where}{name}.", notice)
        else:
            values[name] = cast(value, hints[name], f"{where}{name}")
    return dataclasses.replace(base, **values)


def _merge_kind(old: Kind, value: dict[object, object] | str, where: str, notice: Notice) -> Kind:
    """A part of the kind that was asked for; its fields are those of `old`, where that is of this kind."""
    changes = {"kind": value} if isinstance(value, str) else value
    name, kinds = changes.get("kind", kind_of(old)), old.kinds()
    if not isinstance(name, str) or name not in kinds:
        raise unknown(name, kinds, where)
    base = old if type(old) is kinds[name] else kinds[name]()
    return merge(base, {str(k): v for k, v in changes.items() if k != "kind"}, f"{where}.", notice)


def _kind_asked(old: Kind, value: object) -> object:
    """The name of the kind that a part will be of, once `value` is put over it."""
    if isinstance(value, str):
        return value
    return value.get("kind", kind_of(old)) if is_table(value) else kind_of(old)


def to_dict(config: DataclassInstance) -> dict[str, Any]:
    """A config as plain JSON-able values, which `merge` understands; parts that come in kinds say of which they are."""
    plain: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            kind = {"kind": kind_of(value)} if isinstance(value, Kind) else {}
            plain[f.name] = {**kind, **to_dict(value)}
        else:
            plain[f.name] = json.loads(json.dumps(value))
    return plain


def check(config: DataclassInstance) -> None:
    """Hold every field of a dataclass, and of those inside it, against its type and range, then ask for their `rules`.

    For values that came by flags or from Python; `merge` and `cast` hold theirs against types and ranges themselves.
    """
    _ranges(config, "")
    _rules(config)


def _ranges(config: DataclassInstance, where: str) -> None:
    hints = typing.get_type_hints(type(config), include_extras=True)
    for f in dataclasses.fields(config):
        value, name = getattr(config, f.name), f"{where}{f.name.replace('_', '-')}"
        cast(value, hints[f.name], name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            _ranges(value, f"{name}.")


def _rules(config: DataclassInstance) -> None:
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            _rules(value)
    if isinstance(config, Checked):
        config.rules()


def differences(old: object, new: object, where: str = "") -> list[str]:
    """The settings in which two configs differ, as 'name: old -> new' lines."""
    if not dataclasses.is_dataclass(old) or type(old) is not type(new):
        return [] if old == new else [f"{where[:-1]}: {old} -> {new}"]
    names = [f.name for f in dataclasses.fields(old)]
    return [line for n in names for line in differences(getattr(old, n), getattr(new, n), f"{where}{n}.")]


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
    except ValueError as error:  # not TOML, not UTF-8, or a whole number of thousands of digits
        raise ConfigError(f"The settings file {path} is not TOML: {error}.") from error
    except RecursionError as error:
        raise ConfigError(f"The settings file {path} cannot be read: it is nested too deeply.") from error
