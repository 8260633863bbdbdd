"""Parse the JSON answers of untrusted servers into labels or scores, or raise the reason why they are unusable."""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wootz.suspects.endpoints.context import EndpointInfo
from wootz.types import AnswerAccess

Answer: TypeAlias = NDArray[Any]
"""The answer to one image: scores float32 [K], or a label int64 []."""

_NUMBERED = re.compile(r"(?:LABEL_)?(\d{1,9})")
_SCORES = ("probabilities", "scores", "logits")
_LABELS = ("class_ids", "class_id", "classes", "class", "labels", "label")
"""Names of outputs, in the order in which they are preferred; TensorFlow's estimators have most of them at once."""


class UnusableAnswerError(Exception):
    """An answer with status 200 that cannot be used; its images are missing and are not queried again.

    The message is a predicate that continues "the answer ...", for example "is not JSON".
    """


def parse_json(data: bytes) -> Any:
    """Parse JSON from an untrusted server.

    Raises:
        UnusableAnswerError: `data` is not JSON, or is nested too deep.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise UnusableAnswerError("is not JSON") from None


def missing_answer(access: AnswerAccess, num_classes: int | None) -> Answer:
    """Return the placeholder for an image without an answer: NaN scores [K] (K is 1 if unknown), or the label -1."""
    return np.full(num_classes or 1, np.nan, np.float32) if access == "scores" else np.array(-1)


def is_missing(answer: Answer) -> bool:
    """Return whether this is the placeholder for an image without an answer."""
    return bool(np.isnan(answer).any()) if answer.ndim else int(answer) < 0


def parse_answer(item: Any, access: AnswerAccess, info: EndpointInfo) -> Answer:
    """Parse the answer to one image: a label, a class name, scores [K], a list of `{label, score}`, or named outputs.

    Classes that such a list omits get the score 0. A label may be a whole float, as JSON of some servers has it.

    Raises:
        UnusableAnswerError: `item` is none of these, or does not fit the classes or the access.
    """
    if isinstance(item, dict):
        item = _named_output(item, access)
    if isinstance(item, list) and item and all(isinstance(entry, dict) for entry in item):
        item = _parse_label_scores(item, access, info)
    if isinstance(item, str):
        item = _class_index(item, info)
    if isinstance(item, int | float) and not isinstance(item, bool):
        return _parse_label(item, access, info)
    scores = _finite_scores(item)
    if len(scores) < 2 or len(scores) != (info.num_classes or len(scores)):
        raise UnusableAnswerError(f"has {len(scores)} scores, not {info.num_classes or 'two or more'}")
    return scores if access == "scores" else np.array(scores.argmax())


def parse_numbers(values: Any) -> NDArray[np.float64]:
    """Return a flat list of JSON numbers as float64 [N]; null becomes NaN.

    Raises:
        UnusableAnswerError: `values` is not a list, or contains something else.
    """
    if not isinstance(values, list) or not all(type(value) in (int, float, type(None)) for value in values):
        raise UnusableAnswerError("is not a list of numbers")
    try:
        return np.array([math.nan if value is None else value for value in values], np.float64)
    except OverflowError:
        raise UnusableAnswerError("has a number beyond the range of float64") from None


def short_repr(value: Any) -> str:
    """Return the `repr` of a value from an untrusted server, cut to at most 60 characters."""
    entries = value if isinstance(value, list) else [value]
    if any(isinstance(entry, list | dict) for entry in entries):  # may be nested too deep for `repr`
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _finite_scores(item: Any) -> NDArray[np.float32]:
    values = item if isinstance(item, np.ndarray) else parse_numbers(item)
    with np.errstate(over="ignore"):
        scores: NDArray[np.float32] = values.astype(np.float32)
    if not np.isfinite(scores).all():
        raise UnusableAnswerError("holds NaN, null or infinity")
    return scores


def _named_output(outputs: dict[str, Any], access: AnswerAccess) -> Any:
    """Return the output that answers, by the order of the known names, or the only one; or `{label, score}` entries."""
    labels, scores = outputs.get("classes"), outputs.get("scores")
    if isinstance(labels, list) and isinstance(scores, list) and len(labels) == len(scores) > 1:
        return [{"label": label, "score": score} for label, score in zip(labels, scores, strict=True)]
    single = {
        name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in outputs.items()
    }
    label = next((single[name] for name in _LABELS if isinstance(single.get(name), str | int | float)), None)
    row = next((single[name] for name in _SCORES if name in single), None)
    for value in (row,) if access == "scores" else (label, row):
        if value is not None:
            return value
    if len(single) == 1:
        return next(iter(single.values()))
    raise UnusableAnswerError(
        f"has the outputs {short_repr(', '.join(outputs))}; choose one with api=template template.item=/NAME"
    )


def _parse_label(label: float, access: AnswerAccess, info: EndpointInfo) -> Answer:
    if access == "scores":
        raise UnusableAnswerError("is a label, without scores")
    if not (0 <= label < (info.num_classes or 2**31) and label == int(label)):
        raise UnusableAnswerError(f"is not a class index ({short_repr(label)})")
    return np.array(int(label))


def _parse_label_scores(item: list[dict[str, Any]], access: AnswerAccess, info: EndpointInfo) -> Any:
    """Convert a list of `{label, score}` to the label of the highest score, or to scores [K]."""
    scores = _finite_scores([entry.get("score") for entry in item])
    labels = [entry.get("label") for entry in item]
    if access == "label":
        return labels[int(scores.argmax())]
    all_scores = np.zeros(info.num_classes or 0, np.float32)
    for label, score in zip(labels, scores, strict=True):
        index = _class_index(label, info)
        if index >= len(all_scores):
            raise UnusableAnswerError(f"names an unknown class ({short_repr(label)})")
        all_scores[index] = score
    return all_scores


def _class_index(name: Any, info: EndpointInfo) -> int:
    """Return the index of a class name, or the number in a generic name such as `LABEL_7` or `7`."""
    if isinstance(name, str) and info.classes and name in info.classes:
        return info.classes.index(name)
    numbered = _NUMBERED.fullmatch(name) if isinstance(name, str) else None
    if numbered is None:
        raise UnusableAnswerError(f"names an unknown class ({short_repr(name)})")
    return int(numbered[1])
