"""Values of JSON files, each checked; what is of the wrong kind is a StoreError that says where."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wootz.errors import StoreError
from wootz.store import read_bytes


def mapping(value: Any, where: str) -> dict[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise StoreError(f"{where}: should be a JSON object")
    return value


def array(value: Any, where: str) -> list[Any]:
    """Return a JSON array."""
    if not isinstance(value, list):
        raise StoreError(f"{where}: should be a JSON array")
    return value


def number(value: Any, where: str) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StoreError(f"{where} = {value!r} should be a number")
    return value


def integer(value: Any, where: str) -> int:
    """Return a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise StoreError(f"{where} = {value!r} should be a whole number")
    return value


def text(value: Any, where: str) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise StoreError(f"{where} = {value!r} should be text")
    return value


def pixels(value: Any, where: str) -> NDArray[np.uint8]:
    """Return an image [C, H, W] of whole gray levels."""
    try:
        image = np.asarray(value)
    except ValueError as error:
        raise StoreError(f"{where}: is not an image ({error})") from error
    whole = image.ndim == 3 and image.size > 0 and image.dtype.kind in "iu"
    if not whole or image.min() < 0 or image.max() > 255:
        raise StoreError(f"{where}: is not an image of whole numbers 0 to 255 in [C][H][W]")
    return image.astype(np.uint8)


def parsed(line: str, where: str) -> Any:
    """Return the value of a line of JSON."""
    try:
        return json.loads(line)
    except ValueError as error:
        raise StoreError(f"{where}: is not JSON ({error})") from error


def lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty."""
    try:
        return [line for line in read_bytes(path).decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: is not text ({error})") from error
