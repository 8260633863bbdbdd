"""Frozen dataclasses as configs: built from plain values, TOML or `key=value` texts, type-checked and digested."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, Union, get_args, get_origin

import tomli_w

from wootz.errors import ConfigError
from wootz.registry import nearest


class Dataclass(Protocol):
    """Any dataclass instance."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


_MOST_TOML = 1 << 20

C = TypeVar("C", bound=Dataclass)


def from_mapping(kind: type[C], values: Mapping[str, Any], where: str = "config") -> C:
    """Build a `kind` from plain values; nested mappings become nested configs.

    Args:
        kind: the dataclass.
        values: its settings; those that are missing get their defaults.
        where: the prefix of a setting's name in error messages.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type.
    """
    return kind(**{key: _coerce(_hint(kind, key, where), value, f"{where}.{key}") for key, value in values.items()})


def with_settings(config: C, settings: Sequence[str]) -> C:
    """Return `config` with `key=value` settings applied; `a.b=value` changes a nested config."""
    values: dict[str, Any] = to_mapping(config)
    held: Any
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: must be key=value, for example steps=40")
        table, held, path = values, config, key.strip().split(".")
        for step in path[:-1]:
            inner = table.get(step)
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {key}: {step!r} has no settings of its own")
            table, held = inner, getattr(held, step, None)
        if isinstance(held, dict):
            table[path[-1]] = _plain_value(text.strip())
        elif path[-1] in table:
            table[path[-1]] = text.strip()
        else:
            raise ConfigError(f"--set {key}: no such setting; {nearest(path[-1], table)}")
    return from_mapping(type(config), values, "--set")


def with_values(config: C, values: Mapping[str, Any], where: str) -> C:
    """Return `config` updated with nested plain values; `where` is the prefix of their names in error messages."""
    changes = {}
    for key, value in values.items():
        hint, name = _hint(type(config), key, where), f"{where}.{key}"
        inner = getattr(config, key)
        nested = dataclasses.is_dataclass(inner) and isinstance(value, Mapping)
        changes[key] = with_values(inner, value, name) if nested else _coerce(hint, value, name)
    return dataclasses.replace(config, **changes)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: the file cannot be read, or is not TOML; the message names the file and the position.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: is not a plain file")
        if path.stat().st_size > _MOST_TOML:
            raise ConfigError(f"{path}: has more than {_MOST_TOML:,} bytes")
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: is nested too deeply") from error


def to_mapping(config: Dataclass) -> dict[str, Any]:
    """Return the plain values of `config`; nested configs become nested mappings."""
    return dataclasses.asdict(config)


def to_toml(config: Dataclass) -> bytes:
    """Return the config as a TOML file for `read_toml` and `from_mapping`; values of None are left out.

    Raises:
        ConfigError: a value is not Unicode, for example the path of a file whose name is not UTF-8.
    """
    text = tomli_w.dumps(_without_none(to_mapping(config)))
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        line = text[: error.start].count("\n")
        raise ConfigError(f"{text.splitlines()[line]!a}: is not UTF-8; rename the file") from error


def digest(*configs: Dataclass | Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the configs' canonical JSON."""
    plain = [dict(c) if isinstance(c, Mapping) else to_mapping(c) for c in configs]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the settings in which two configs as plain values differ, such as `recipe.epochs = 4, not 2`."""
    found = []
    for name in dict.fromkeys((*one, *other)):
        left, right = one.get(name), other.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += [f"{name}.{inner}" for inner in differences(left, right)]
        elif left != right:
            found.append(f"{name} = {left!r}, not {right!r}")
    return found


def _hint(kind: type[Dataclass], key: str, where: str) -> Any:
    """Return the type of a setting; raise ConfigError if `kind` has no such setting."""
    hints = _hints(kind)
    if key not in hints:
        raise ConfigError(f"{where}.{key}: no such setting of {kind.__name__}; {nearest(key, hints)}")
    return hints[key]


@cache
def _hints(kind: type[Dataclass]) -> dict[str, Any]:
    """Return the types of a config's settings."""
    types_of = typing.get_type_hints(kind)
    return {field.name: types_of[field.name] for field in dataclasses.fields(kind)}


def _without_none(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {k: _without_none(v) for k, v in plain.items() if v is not None}
    return [_without_none(v) for v in plain] if isinstance(plain, list | tuple) else plain


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """Convert `value`, a typed value or the text of a setting, to the type `hint`."""
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None or (value == "none" and type(None) in get_args(hint)):
            return None
        return _coerce(next(a for a in get_args(hint) if a is not type(None)), value, where)
    if origin is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{where} = {value!r}: {nearest(str(value), get_args(hint))}")
        return value
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise ConfigError(f"{where} = {value!r}: must be a list")
        return tuple(_coerce(get_args(hint)[0], item, where) for item in items if item != "")
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} = {value!r}: must be a table")
        return {key: _coerce(get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} = {value!r}: must be a table")
        return from_mapping(hint, value, where)
    if hint is bool:
        values = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
        if not isinstance(value, bool | int | str) or value not in values:
            raise ConfigError(f"{where} = {value!r}: must be true or false")
        return values[value]
    if hint in (int, float):
        return _number(hint, value, where)
    if hint is str and isinstance(value, str):
        return value
    raise ConfigError(f"{where} = {value!r}: must be of type {getattr(hint, '__name__', hint)}")


def _plain_value(text: str) -> Any:
    """Return the text of a setting of unknown type as the JSON value that it is, or as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _number(kind: type[int] | type[float], value: Any, where: str) -> float:
    """Convert to an int or a float; the text of a float may be a fraction such as 8/255."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ConfigError(f"{where} = {value!r}: must be a number")
    try:
        if kind is float and isinstance(value, str) and "/" in value:
            numerator, denominator = value.split("/", 1)
            return float(numerator) / float(denominator)
        if kind is int and isinstance(value, float) and value != int(value):
            raise ValueError
        return kind(value)
    except (OverflowError, ValueError, ZeroDivisionError):
        raise ConfigError(f"{where} = {value!r}: must be {'a whole number' if kind is int else 'a number'}") from None
