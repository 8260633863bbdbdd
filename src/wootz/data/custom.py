"""Custom data sets: an `.npz` file, or a folder of class folders."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from wootz.data.dataset import MOST_CLASSES, RawDataset, Split
from wootz.errors import DataError
from wootz.rng import generator

_TEST_FRACTION = 6  # a source without test images has one image in six held out for testing
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".webp"})


def load_npz(path: Path) -> RawDataset:
    """Read `x_train`, `y_train` and optionally `x_test`, `y_test`, `classes` from an `.npz` file.

    Images are uint8, [N, H, W] or [N, H, W, C] or [N, C, H, W] with 1 or 3 channels; labels are integers.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is not an .npz file of plain arrays ({error})") from error
    for name in ("x_train", "y_train"):
        if name not in arrays:
            raise DataError(f"{path}: has no array {name!r}; it holds {', '.join(arrays) or 'nothing'}")
    training = _as_split(path, arrays["x_train"], arrays["y_train"])
    if "x_test" in arrays and "y_test" in arrays:
        test = _as_split(path, arrays["x_test"], arrays["y_test"])
    else:
        training, test = _hold_out_test(training)
    count = 1 + int(training.labels.max()) if len(training) else 0
    _check_classes(path, count)
    names = arrays.get("classes", np.arange(count))
    return RawDataset(str(path), tuple(str(name) for name in names), training, test)


def load_folder(path: Path) -> RawDataset:
    """Read a folder with one folder of images per class.

    All images must have one size; all are read as gray or as RGB, as the first one is.
    """
    from PIL import Image, UnidentifiedImageError

    classes = tuple(sorted(child.name for child in path.iterdir() if child.is_dir()))
    if len(classes) < 2:
        raise DataError(f"{path}: must hold one folder of images per class, and at least two classes")
    _check_classes(path, len(classes))
    images: list[np.ndarray] = []
    labels: list[int] = []
    mode = ""
    for label, name in enumerate(classes):
        for file in sorted(f for f in (path / name).iterdir() if f.suffix.lower() in _SUFFIXES):
            try:
                with Image.open(file) as image:
                    mode = mode or ("L" if image.mode in ("1", "L", "I;16") else "RGB")
                    array = np.asarray(image.convert(mode))
            except (OSError, UnidentifiedImageError) as error:
                raise DataError(f"{file}: is not a complete image ({error})") from error
            if images and array.shape != images[0].shape:
                sizes = [f"{a.shape[1]}x{a.shape[0]}" for a in (array, images[0])]
                raise DataError(f"{file}: is {sizes[0]}, but the first image is {sizes[1]}")
            images.append(array)
            labels.append(label)
    if not images:
        raise DataError(f"{path}: its class folders hold no images ({', '.join(sorted(_SUFFIXES))})")
    training, test = _hold_out_test(_as_split(path, np.stack(images), np.asarray(labels)))
    return RawDataset(str(path), classes, training, test)


def _check_classes(path: Path, count: int) -> None:
    if count > MOST_CLASSES:
        raise DataError(f"{path}: has {count} classes; must have at most {MOST_CLASSES}, numbered from 0")


def _as_split(path: Path, images: np.ndarray, labels: np.ndarray) -> Split:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(f"{path}: images must be uint8 [N, H, W(, C)], these are {images.dtype} {list(images.shape)}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise DataError(f"{path}: labels must be integers [N], these are {labels.dtype} {list(labels.shape)}")
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    return Split(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64)))


def _hold_out_test(training: Split) -> tuple[Split, Split]:
    order = torch.randperm(len(training), generator=generator(0, "test", len(training)))
    cut = len(training) // _TEST_FRACTION
    return training.subset(order[cut:]), training.subset(order[:cut])
