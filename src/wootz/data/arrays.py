"""Images, labels and class names in the forms that people have them, as uint8 levels, int64 labels and plain names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wootz.checks import total_memory
from wootz.data.dataset import MOST_CLASSES, RawDataset, Split
from wootz.errors import DataError
from wootz.logs import warn_once

_ROUNDING = 1e-6
_LONGEST_NAME = 200
_LISTED = 5
_FEWEST_IMAGES = 4
"""A class needs an image for training, and some for the held-out parts."""


def as_levels(where: str, *arrays: NDArray[Any]) -> list[NDArray[np.uint8]]:
    """Return the images of one data set as uint8 levels from 0 to 255, all arrays converted alike.

    Integers from 0 to 255 are levels and floats in [0, 1] are rounded to levels. Images of 0 and 1 alone, booleans or
    integers, are black and white, which is reported on standard error.

    Args:
        where: the source of the images, for messages.
        arrays: images of any shape, all of one kind of number.

    Raises:
        DataError: the values are outside these ranges, not finite, or no numbers.
    """
    kinds = {array.dtype.kind for array in arrays}
    filled = [array for array in arrays if array.size]
    if len(kinds) > 1 or not kinds <= set("buif"):
        raise DataError(f"{where}: images are {_types(arrays)}; must be all uint8, or all floats from 0 to 1")
    low, high = (float(f([f(array) for array in filled])) if filled else 0.0 for f in (np.min, np.max))
    if kinds == {"f"} and low >= -_ROUNDING and high <= 1 + _ROUNDING:  # false for NaN
        return [np.rint(array.clip(0, 1) * 255).astype(np.uint8) for array in arrays]
    if kinds == {"f"} or low < 0 or high > 255:
        raise DataError(
            f"{where}: images are {_types(arrays)} from {low:.3g} to {high:.3g}; must be integers from 0 to 255, or "
            "floats from 0 to 1 (normalization belongs into the model)"
        )
    if kinds == {"b"} or high == 1:
        warn_once(f"{where}: its images hold 0 and 1 only; 1 is read as white (255)")
        return [array.astype(np.uint8) * np.uint8(255) for array in arrays]
    return [array.astype(np.uint8) for array in arrays]


def as_labels(where: str, labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return one label per image, int64 [N], from whole numbers [N] or [N, 1] of any type, or from one-hot rows [N, K].

    Raises:
        DataError: the labels are something else, negative, or above the largest number of classes.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and labels.dtype.kind in "buif" and labels.size and _is_one_hot(labels):
        labels = labels.argmax(1)
    whole = labels.dtype.kind in "bui" or (labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all()))
    if labels.ndim != 1 or not whole:
        raise DataError(
            f"{where}: labels must be integers [N] or one-hot [N, K], these are {labels.dtype} {list(labels.shape)}"
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < MOST_CLASSES):  # before uint64 or infinity wraps
        raise DataError(
            f"{where}: labels from {labels.min()} to {labels.max()}; must be numbered from 0, with at most "
            f"{MOST_CLASSES} classes"
        )
    return labels.astype(np.int64)


def check_classes(raw: RawDataset) -> None:
    """Raise DataError unless there are two classes or more, each with a printable name of its own and training images.

    A class without training images would count as one that the model knows.
    """
    name, classes, training = raw.name, raw.classes, raw.training
    for label in classes:
        if not (label and label.isprintable() and len(label) <= _LONGEST_NAME):
            raise DataError(
                f"{name}: the class name {label[:_LONGEST_NAME]!r} is empty, longer than {_LONGEST_NAME} characters, "
                "or holds control characters"
            )
    if repeated := [label for label, count in Counter(classes).items() if count > 1]:
        raise DataError(f"{name}: the class name {repeated[0]!r} occurs twice; names of classes must differ")
    labels = training.labels.unique().tolist()
    if labels and labels[-1] >= len(classes):
        raise DataError(f"{name}: labels from {labels[0]} to {labels[-1]}, but names of {len(classes)} classes")
    if len(classes) == 1:
        raise DataError(f"{name}: has images of one class only; a classifier needs two at least")
    present = set(labels)
    if labels and (missing := [label for label in range(len(classes)) if label not in present]):
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise DataError(
            f"{name}: no training image has label {', '.join(map(str, missing[:_LISTED]))}{more} of 0 to "
            f"{len(classes) - 1}; number the classes from 0 without gaps, and name only these"
        )


def custom_dataset(
    name: str, classes: tuple[str, ...], training: Split, test: Split, *, unreadable: int = 0
) -> RawDataset:
    """Return a user's own data, whose parts will be stratified; without test images, some of the training images test.

    Raises:
        DataError: see `check_classes`; a class has too few images to be split.
    """
    raw = RawDataset(name, classes, training, test, stratified=True, unreadable=unreadable)
    if 0 in training.pixels.shape[1:]:
        raise DataError(
            f"{name}: images of shape {list(training.pixels.shape[1:])}; height and width must be at least 8"
        )
    check_classes(raw)
    counts = torch.bincount(training.labels, minlength=len(classes)).tolist()
    few = [f"{label!r} ({count})" for label, count in zip(classes, counts, strict=True) if count < _FEWEST_IMAGES]
    if few and len(training):
        more = f" and {len(few) - _LISTED} more" if len(few) > _LISTED else ""
        listed = f"{', '.join(few[:_LISTED])}{more}"
        raise DataError(
            f"{name}: classes with fewer than {_FEWEST_IMAGES} training images are too few to split: {listed}; give "
            "more images of them, join them with another class, or leave them out"
        )
    return raw


def check_plain_file(path: Path) -> None:
    """Raise DataError unless there is a plain file at `path`; opening a pipe could wait forever."""
    if not path.is_file():
        raise DataError(f"{path}: {'is not a plain file' if path.exists() else 'there is no such file'}")


def check_memory(where: str, size: int) -> None:
    """Raise DataError if `size` bytes do not fit into the memory of this machine."""
    memory = total_memory()
    if size > memory:
        raise DataError(f"{where}: needs {size / 1e9:,.1f} GB of memory; this machine has {memory / 1e9:,.1f}")


def _is_one_hot(labels: NDArray[Any]) -> bool:
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all())


def _types(arrays: Sequence[NDArray[Any]]) -> str:
    return " and ".join(dict.fromkeys(str(array.dtype) for array in arrays))
