"""Data sets as tensors in memory, split once into train, validation, probes, attack (`thief`) and test images.

`load` takes a name of `DATASETS`, an `.npz` or `.tar` file, a folder of class folders or of IDX files, or a data set of
Hugging Face that was saved to disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from torch import cat

from wootz.data.arrays import as_labels, as_levels, check_classes, custom_dataset
from wootz.data.builtin import find_folder, load_mnist_5k, read_published
from wootz.data.dataset import (
    Dataset,
    RawDataset,
    Split,
    Unlabelled,
    check_balance,
    check_set_aside,
    epoch_batches,
    label_dataset,
    split_dataset,
)
from wootz.data.decoding import as_shown, check_size, fit, resize
from wootz.data.hugging_face import is_saved_dataset, load_saved_dataset, load_saved_images
from wootz.data.idx_folder import has_idx_files, load_idx_folder
from wootz.data.image_folder import load_folder, load_images
from wootz.data.npz import load_npz, load_npz_images
from wootz.data.sources import SOURCES
from wootz.data.tar import load_tar, load_tar_images
from wootz.errors import ConfigError
from wootz.registry import lookup

__all__ = [
    "DATASETS",
    "Dataset",
    "Split",
    "Unlabelled",
    "RawDataset",
    "as_labels",
    "as_levels",
    "as_shown",
    "check_balance",
    "check_classes",
    "check_set_aside",
    "check_size",
    "custom_dataset",
    "epoch_batches",
    "fit",
    "label_dataset",
    "load",
    "load_other",
    "load_unlabelled",
    "resize",
    "split_dataset",
]


def load(
    name: str,
    data_dir: Path | None = None,
    set_aside: float = 1.0,
    *,
    size: int | None = None,
    skip_unreadable: bool = False,
) -> Dataset:
    """Load a data set and split it.

    Args:
        name: a name in `DATASETS`, or the path of a custom data set (`./mnist` if it has such a name).
        data_dir: the folder that is searched first for published data sets.
        set_aside: the fraction of the default probes and attack images to hold out, see `split_dataset`.
        size: resize the shorter side of every image to `size` and crop the middle `size` x `size`; None requires images
            of one size.
        skip_unreadable: leave out images of a folder that cannot be read, instead of refusing them.

    Raises:
        ConfigError: there is no such name or path, or `size` is no possible side of an image.
        DataError: files are missing, truncated, of the wrong size or another data set's; the message names the reason.
    """
    check_size(size)
    raw = _load_raw(name, data_dir, size, skip_unreadable)
    if size is not None:
        training, test = (Split(resize(split.pixels, size), split.labels) for split in (raw.training, raw.test))
        raw = raw._replace(training=training, test=test, size=size)
    return split_dataset(raw, set_aside)


def load_unlabelled(
    name: str, data_dir: Path | None = None, *, size: int | None = None, skip_unreadable: bool = False
) -> Unlabelled:
    """Load images alone; `label_dataset` makes a data set of them and of labels.

    Args:
        name: a folder of images, in folders or not, a `.tar` file of images, an `.npz` file with arrays of images, a
            data set of Hugging Face that was saved to disk, or a name in `DATASETS`.
            Labels that the source may have are ignored.
        data_dir: see `load`.
        size: see `load`.
        skip_unreadable: see `load`.

    Raises:
        ConfigError: see `load`.
        DataError: see `load`.
    """
    check_size(size)
    path = Path(name)
    if _is_named(path, ".npz"):
        pixels = load_npz_images(path)
    elif _is_named(path, ".tar"):
        return load_tar_images(path, size=size, skip_unreadable=skip_unreadable)
    elif name not in DATASETS and is_saved_dataset(path):
        return load_saved_images(path, size=size, skip_unreadable=skip_unreadable)
    elif name not in DATASETS and os.path.isdir(name) and not has_idx_files(path):
        return load_images(path, size=size, skip_unreadable=skip_unreadable)
    else:
        raw = _load_raw(name, data_dir, size, skip_unreadable)
        pixels = cat([raw.training.pixels, raw.test.pixels])
    return Unlabelled(pixels if size is None else resize(pixels, size))


def load_other(data: Dataset, data_dir: Path | None = None, name: str | None = None) -> Dataset:
    """Return another data set of the same shape: `name`, or else Fashion-MNIST for digits and MNIST for all others.

    Raises:
        ConfigError: its images have another shape, or it has more classes.
    """
    name = name or ("fashion-mnist" if data.name.startswith("mnist") else "mnist")
    other = load(name, data_dir, size=data.size)
    if other.shape != data.shape or len(other.classes) > len(data.classes):
        raise ConfigError(f"data set {name!r}: images {other.shape} do not fit {data.name}'s {data.shape}")
    return other


def _load_raw(name: str, data_dir: Path | None, size: int | None, skip_unreadable: bool) -> RawDataset:
    path = Path(name)
    if _is_named(path, ".npz"):
        return load_npz(path)
    if _is_named(path, ".tar"):
        return load_tar(path, size=size, skip_unreadable=skip_unreadable)
    if name not in DATASETS and os.path.isdir(name):  # unlike Path.is_dir, false for a name that is too long
        if has_idx_files(path):
            return load_idx_folder(path)
        if is_saved_dataset(path):
            return load_saved_dataset(path, size=size, skip_unreadable=skip_unreadable)
        return load_folder(path, size=size, skip_unreadable=skip_unreadable)
    return lookup(DATASETS, name, "data set (nor a folder of class folders, nor an .npz or .tar file)")(data_dir)


def _is_named(path: Path, suffix: str) -> bool:
    """Return whether this names a file of this kind, there or not, and no folder."""
    return path.suffix.lower() == suffix and not os.path.isdir(path)


def _load_published(name: str, data_dir: Path | None) -> RawDataset:
    return read_published(name, find_folder(name, data_dir))


DATASETS: Mapping[str, Callable[[Path | None], RawDataset]] = MappingProxyType(
    {"mnist-5k": lambda _: load_mnist_5k(), **{name: partial(_load_published, name) for name in SOURCES}}
)
