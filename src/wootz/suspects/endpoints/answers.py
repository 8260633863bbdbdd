"""Read what strangers answer: JSON of any form into labels or scores, or the reason why it can not be used."""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wootz.suspects.endpoints.settings import EndpointInfo
from wootz.types import AnswerAccess

Row: TypeAlias = NDArray[Any]
"""The answer to one image: scores float32 [K], or a label int64 []."""

_NUMBERED = re.compile(r"LABEL_(\d{1,9})")


class UnusableError(Exception):
    """An answer that says nothing; the message says why. Its images are missing and are not asked again."""


def read_json(data: bytes) -> Any:
    """Read foreign JSON.

    Raises:
        UnusableError: it is none.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise UnusableError("is not JSON") from None


def missing(access: AnswerAccess, num_classes: int | None) -> Row:
    """Return the row of an image without an answer: NaN scores, or label -1."""
    return np.full(num_classes or 1, np.nan, np.float32) if access == "scores" else np.array(-1)


def read_row(item: Any, access: AnswerAccess, info: EndpointInfo) -> Row:
    """Read one image's answer: a label, a class name, scores [K], or a list of `{label, score}`.

    Classes that such a list leaves out score 0.

    Raises:
        UnusableError: it is none of these, or does not fit the classes or the access.
    """
    if isinstance(item, list) and item and all(isinstance(part, dict) for part in item):
        item = _listed(item, access, info)
    if isinstance(item, str):
        item = _index(item, info)
    if isinstance(item, int) and not isinstance(item, bool):
        return _label(item, access, info)
    scores = _finite(item)
    if len(scores) < 2 or len(scores) != (info.num_classes or len(scores)):
        raise UnusableError(f"scores {len(scores)} classes, not {info.num_classes or 'two or more'}")
    return scores if access == "scores" else np.array(scores.argmax())


def numbers(values: Any) -> NDArray[np.float64]:
    """Return a flat list of JSON numbers as float64; null is NaN.

    Raises:
        UnusableError: it is not a list, or holds something else.
    """
    if not isinstance(values, list) or not all(type(value) in (int, float, type(None)) for value in values):
        raise UnusableError("is no list of numbers")
    try:
        return np.array([math.nan if value is None else value for value in values], np.float64)
    except OverflowError:
        raise UnusableError("holds a number beyond all bounds") from None


def brief(value: Any) -> str:
    """Return foreign text fit for one line of a message."""
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, list | dict) for part in parts):  # may be nested too deep to be printed
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _finite(item: Any) -> NDArray[np.float32]:
    values = item if isinstance(item, np.ndarray) else numbers(item)
    with np.errstate(over="ignore"):
        scores: NDArray[np.float32] = values.astype(np.float32)
    if not np.isfinite(scores).all():
        raise UnusableError("holds NaN, null or infinity")
    return scores


def _label(label: int, access: AnswerAccess, info: EndpointInfo) -> Row:
    if access == "scores":
        raise UnusableError("is a label, without scores")
    if not 0 <= label < (info.num_classes or 2**31):
        raise UnusableError(f"is no class ({brief(label)})")
    return np.array(label)


def _listed(item: list[dict[str, Any]], access: AnswerAccess, info: EndpointInfo) -> Any:
    """Turn a list of `{label, score}` into its best label, or into a score for every class."""
    scores = _finite([part.get("score") for part in item])
    labels = [part.get("label") for part in item]
    if access == "label":
        return labels[int(scores.argmax())]
    whole = np.zeros(info.num_classes or 0, np.float32)
    for label, score in zip(labels, scores, strict=True):
        index = _index(label, info)
        if index >= len(whole):
            raise UnusableError(f"is no class ({brief(label)})")
        whole[index] = score
    return whole


def _index(name: Any, info: EndpointInfo) -> int:
    """Return the class that a name means: one of the known ones, or the number in `LABEL_7`."""
    if isinstance(name, str) and info.classes and name in info.classes:
        return info.classes.index(name)
    numbered = _NUMBERED.fullmatch(name) if isinstance(name, str) else None
    if numbered is None:
        raise UnusableError(f"names a class that is not known ({brief(name)})")
    return int(numbered[1])
