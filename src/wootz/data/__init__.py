"""Data sets as resident tensors, divided once into train, validation, probes, the thief's share, and test.

`load` takes a name of `DATASETS`, an `.npz` file, or a folder of class folders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from wootz.data.batches import epoch_batches
from wootz.data.dataset import Dataset, RawDataset, Split, check_set_aside, divide
from wootz.data.embedded import load_mnist_5k
from wootz.data.finding import find, read
from wootz.data.own import load_folder, load_npz
from wootz.data.sources import SOURCES
from wootz.errors import ConfigError
from wootz.registry import lookup

__all__ = [
    "DATASETS",
    "Dataset",
    "Split",
    "RawDataset",
    "check_set_aside",
    "divide",
    "epoch_batches",
    "load",
    "load_other",
]


def load(name: str, data_dir: Path | None = None, set_aside: float = 1.0) -> Dataset:
    """Return the data set called `name`, or the user's own at the path `name`, divided; see `divide` for `set_aside`.

    Raises:
        ConfigError: no such name or path.
        DataError: missing, truncated, mis-sized or foreign files, named with the reason.
    """
    return divide(_whole(name, data_dir), set_aside)


def load_other(data: Dataset, data_dir: Path | None = None, name: str | None = None) -> Dataset:
    """Return another data set of the same shape: `name`, or Fashion-MNIST for digits and MNIST for all else.

    Raises:
        ConfigError: its images have another shape, or it has more classes.
    """
    name = name or ("fashion-mnist" if data.name.startswith("mnist") else "mnist")
    other = load(name, data_dir)
    if other.shape != data.shape or len(other.classes) > len(data.classes):
        raise ConfigError(f"data set {name!r}: images {other.shape} do not fit {data.name}'s {data.shape}")
    return other


def _whole(name: str, data_dir: Path | None) -> RawDataset:
    path = Path(name)
    if path.suffix == ".npz":
        return load_npz(path)
    if path.is_dir():
        return load_folder(path)
    return lookup(DATASETS, name, "data set (nor a folder of class folders, nor an .npz file)")(data_dir)


def _load_source(name: str, data_dir: Path | None) -> RawDataset:
    return read(name, find(name, data_dir))


DATASETS: Mapping[str, Callable[[Path | None], RawDataset]] = MappingProxyType(
    {"mnist-5k": lambda _: load_mnist_5k(), **{name: partial(_load_source, name) for name in SOURCES}}
)
