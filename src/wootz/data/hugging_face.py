"""Custom data sets that Hugging Face's `datasets` saved to disk (`save_to_disk`): Arrow files, no code."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from wootz.data.arrays import as_labels, custom_dataset
from wootz.data.dataset import RawDataset, Split, Unlabelled
from wootz.data.decoding import Encoded, decode
from wootz.errors import DataError
from wootz.extras import require

if TYPE_CHECKING:
    import datasets

_MARKERS = ("dataset_dict.json", "dataset_info.json")
_LABELS = ("label", "labels")
_TEST = ("test", "validation", "valid", "val")


class _Columns(NamedTuple):
    """The columns of images and of labels, and the names of the classes, if they have any."""

    image: str
    label: str | None
    classes: tuple[str, ...] | None


def is_saved_dataset(path: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`."""
    return any((path / name).is_file() for name in _MARKERS)


def load_saved_dataset(path: Path, *, size: int | None = None, skip_unreadable: bool = False) -> RawDataset:
    """Read a saved `Dataset`, or the `train` and `test` parts of a saved `DatasetDict`.

    The images are in the only column of type `Image`; the labels in the only one of type `ClassLabel`, or in a column
    named `label` or `labels`. `size` and `skip_unreadable` see `decode`.

    Raises:
        DataError: there are no such columns or parts, or several of them.
        ConfigError: the extra `datasets` is not installed.
    """
    parts = _read(path)
    columns = _columns(path, parts["train"])
    if columns.label is None:
        raise DataError(f"{path}: has no column of labels (ClassLabel, or named {' or '.join(_LABELS)})")
    test = next((name for name in _TEST if name in parts), None)
    chosen = [parts["train"], *([parts[test]] if test else [])]
    numbers = [number for part in chosen for number in part[columns.label]]
    known = torch.from_numpy(as_labels(str(path), np.array(numbers)))
    encoded = [one for part in chosen for one in _encoded(path, part, columns.image)]
    decoded = decode(str(path), encoded, size=size, skip_unreadable=skip_unreadable)
    everything = Split(decoded.pixels, known[decoded.numbers])
    cut = int((decoded.numbers < len(chosen[0])).sum())
    return custom_dataset(
        os.path.abspath(path),
        columns.classes or tuple(map(str, range(1 + int(known.max())))),
        everything.subset(slice(cut)),
        everything.subset(slice(cut, None)),
        unreadable=decoded.unreadable,
    )


def load_saved_images(path: Path, *, size: int | None = None, skip_unreadable: bool = False) -> Unlabelled:
    """Return the images of all parts of a saved data set, in their order."""
    parts = _read(path)
    image = _columns(path, parts["train"]).image
    encoded = [one for part in parts.values() for one in _encoded(path, part, image)]
    decoded = decode(str(path), encoded, size=size, skip_unreadable=skip_unreadable)
    return Unlabelled(decoded.pixels, decoded.unreadable)


def _read(path: Path) -> Mapping[str, datasets.Dataset]:
    """Return the parts of a saved data set; one without parts is `train` alone."""
    require("datasets")
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except Exception as error:  # the library and Arrow raise many kinds
        raise DataError(f"{path}: is no complete data set of save_to_disk ({error})") from error
    if not isinstance(saved, DatasetDict):
        return {"train": saved}
    if "train" not in saved:
        raise DataError(f"{path}: has the parts {', '.join(map(str, saved))}; one must be named train")
    return {str(name): part for name, part in saved.items()}


def _columns(path: Path, part: datasets.Dataset) -> _Columns:
    from datasets import ClassLabel, Image

    features = part.features
    images = [name for name, kind in features.items() if isinstance(kind, Image)]
    if len(images) != 1:
        raise DataError(f"{path}: has {len(images)} columns of images ({', '.join(features)}); must have one")
    labels = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    if len(labels) > 1:
        raise DataError(f"{path}: has several columns of labels ({', '.join(labels)}); keep one (remove_columns)")
    if labels:
        return _Columns(images[0], labels[0], tuple(features[labels[0]].names))
    return _Columns(images[0], next((name for name in _LABELS if name in features), None), None)


def _encoded(path: Path, part: datasets.Dataset, column: str) -> list[Encoded]:
    from datasets import Image

    encoded = part.select_columns(column).cast_column(column, Image(decode=False))
    return [Encoded(f"{path}: image {row}", partial(_stream, encoded, row, column)) for row in range(len(encoded))]


def _stream(encoded: datasets.Dataset, row: int, column: str) -> Path | io.BytesIO:
    image: dict[str, Any] = encoded[row][column] or {}
    if image.get("bytes"):
        return io.BytesIO(image["bytes"])
    if image.get("path"):
        return Path(image["path"])
    raise OSError("no image")
