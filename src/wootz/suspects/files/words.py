"""What strangers wrote, made fit to be read: one plain line for errors, JSON without ambiguity."""

from __future__ import annotations

import json
from typing import Any

from wootz.errors import SuspectError


def one_line(text: object, length: int = 300) -> str:
    """Return `text` as one printable line of at most `length` characters; what can not be printed becomes `?`."""
    whole = " ".join(str(text)[: 4 * length].split())
    shown = "".join(character if character.isprintable() else "?" for character in whole)
    return shown if len(shown) <= length else shown[: length - 3] + "..."


def strict_json(data: bytes, name: str) -> Any:
    """Read UTF-8 JSON in which no key comes twice and every number is finite.

    Raises:
        SuspectError: it is something else, or nested too deeply to be read.
    """
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite
        )
    except RecursionError as error:
        raise SuspectError(f"{name}: is JSON nested too deeply") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such
        raise SuspectError(f"{name}: is not strict JSON ({one_line(error, 120)})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key comes twice")
    return made


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number
