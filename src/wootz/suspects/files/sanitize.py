"""Sanitize untrusted text: one printable line for messages, and unambiguous JSON."""

from __future__ import annotations

import json
from typing import Any

from wootz.errors import SuspectError


def one_line(text: object, length: int = 300) -> str:
    """Return `text` as one printable line of at most `length` characters; unprintable characters become `?`."""
    collapsed = " ".join(str(text)[: 4 * length].split())
    printable = "".join(character if character.isprintable() else "?" for character in collapsed)
    return printable if len(printable) <= length else printable[: length - 3] + "..."


def strict_json(data: bytes, name: str) -> Any:
    """Parse UTF-8 JSON in which no key is repeated and every number is finite; error messages start with `name`.

    Raises:
        SuspectError: The data is something else, or nested too deeply.
    """
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite
        )
    except RecursionError as error:
        raise SuspectError(f"{name}: is JSON nested too deeply") from error
    except ValueError as error:  # includes UnicodeDecodeError and JSONDecodeError
        raise SuspectError(f"{name}: is not strict JSON ({one_line(error, 120)})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is repeated")
    return result


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number
