"""Custom data sets in IDX files, named as those of MNIST and EMNIST are, with any number of classes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wootz.data.arrays import as_labels, custom_dataset
from wootz.data.dataset import RawDataset, Split
from wootz.data.formats import parse_idx, read_raw
from wootz.errors import DataError

_NAME = re.compile(r"(?:(.*)-)?(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(?:\.gz)?")


def has_idx_files(path: Path) -> bool:
    """Return whether a folder directly holds files that are named as MNIST's are."""
    try:
        return any(_NAME.fullmatch(name) for name in os.listdir(path))
    except OSError:  # the next to read the folder says why
        return False


def load_idx_folder(path: Path) -> RawDataset:
    """Read `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, and those of `t10k` or `test`, gzipped or not.

    A prefix such as EMNIST's `emnist-letters-` may precede the names. Images are gray, [N, H, W]; labels count from 0.
    """
    files: dict[tuple[str, str], Path] = {}
    for file in sorted(path.iterdir()):
        if match := _NAME.fullmatch(file.name):
            key = ("train" if match[2] == "train" else "test", match[3])
            if key in files:
                raise DataError(f"{path}: holds both {files[key].name} and {file.name}; keep one data set per folder")
            files[key] = file
    for part, kind in [(part, kind) for part, _ in files for kind in ("images", "labels")] + [("train", "images")]:
        if (part, kind) not in files:
            raise DataError(
                f"{path}: holds {', '.join(f.name for f in files.values())}, but no {kind} of {part} images"
            )
    arrays = {key: parse_idx(read_raw(file), file) for key, file in files.items()}
    training = _split(files, arrays, "train")
    test = _split(files, arrays, "test") if ("test", "images") in files else training.subset(slice(0))
    classes = tuple(map(str, range(1 + int(training.labels.max())))) if len(training) else ()
    return custom_dataset(os.path.abspath(path), classes, training, test)


def _split(files: dict[tuple[str, str], Path], arrays: dict[tuple[str, str], NDArray[np.uint8]], part: str) -> Split:
    images, labels = arrays[part, "images"], as_labels(str(files[part, "labels"]), arrays[part, "labels"])
    if images.ndim != 3:
        raise DataError(f"{files[part, 'images']}: images must be [N, H, W], these are {list(images.shape)}")
    if len(images) != len(labels):
        raise DataError(f"{files[part, 'images']}: {len(images)} images but {len(labels)} labels")
    return Split(torch.from_numpy(images)[:, None], torch.from_numpy(labels))
