"""Data sets as tensors in memory, split once into train, validation, probes, attack (`thief`) and test images.

`load` takes a name of `DATASETS`, an `.npz` file, or a folder of class folders.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from wootz.data.arrays import as_labels, as_levels, check_classes
from wootz.data.builtin import find_folder, load_mnist_5k, read_published
from wootz.data.dataset import Dataset, RawDataset, Split, check_set_aside, epoch_batches, split_dataset
from wootz.data.image_folder import load_folder
from wootz.data.npz import load_npz
from wootz.data.sources import SOURCES
from wootz.errors import ConfigError
from wootz.registry import lookup

__all__ = [
    "DATASETS",
    "Dataset",
    "Split",
    "RawDataset",
    "as_labels",
    "as_levels",
    "check_classes",
    "check_set_aside",
    "epoch_batches",
    "load",
    "load_other",
    "split_dataset",
]


def load(name: str, data_dir: Path | None = None, set_aside: float = 1.0) -> Dataset:
    """Load a data set and split it.

    Args:
        name: a name in `DATASETS`, or the path of a custom data set (`./mnist` if it has such a name).
        data_dir: the folder that is searched first for published data sets.
        set_aside: the fraction of the default probes and attack images to hold out, see `split_dataset`.

    Raises:
        ConfigError: there is no such name or path.
        DataError: files are missing, truncated, of the wrong size or another data set's; the message names the reason.
    """
    return split_dataset(_load_raw(name, data_dir), set_aside)


def load_other(data: Dataset, data_dir: Path | None = None, name: str | None = None) -> Dataset:
    """Return another data set of the same shape: `name`, or else Fashion-MNIST for digits and MNIST for all others.

    Raises:
        ConfigError: its images have another shape, or it has more classes.
    """
    name = name or ("fashion-mnist" if data.name.startswith("mnist") else "mnist")
    other = load(name, data_dir)
    if other.shape != data.shape or len(other.classes) > len(data.classes):
        raise ConfigError(f"data set {name!r}: images {other.shape} do not fit {data.name}'s {data.shape}")
    return other


def _load_raw(name: str, data_dir: Path | None) -> RawDataset:
    path = Path(name)
    if path.suffix.lower() == ".npz" and not os.path.isdir(name):
        return load_npz(path)
    if name not in DATASETS and os.path.isdir(name):  # unlike Path.is_dir, false for a name that is too long
        return load_folder(path)
    return lookup(DATASETS, name, "data set (nor a folder of class folders, nor an .npz file)")(data_dir)


def _load_published(name: str, data_dir: Path | None) -> RawDataset:
    return read_published(name, find_folder(name, data_dir))


DATASETS: Mapping[str, Callable[[Path | None], RawDataset]] = MappingProxyType(
    {"mnist-5k": lambda _: load_mnist_5k(), **{name: partial(_load_published, name) for name in SOURCES}}
)
