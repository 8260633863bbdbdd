"""Where the files of known data sets are: local folders first, a checksummed download last."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

from wootz.data.dataset import RawDataset
from wootz.data.idx import read_raw
from wootz.data.sources import SOURCES, File
from wootz.errors import DataError

SYSTEM = Path("/usr/share/datasets")
"""Where packages of the operating system install data sets."""


def places(name: str, data_dir: Path | None = None) -> tuple[Path, ...]:
    """Return the folders where `name` is looked for, first to last."""
    roots = [Path(root) for root in (data_dir, os.environ.get("WOOTZ_DATA")) if root]
    return (*(root / name for root in roots), cache_folder(name), SYSTEM / name)


def cache_folder(name: str) -> Path:
    """Return the folder that downloads of `name` go to."""
    return Path(platformdirs.user_cache_dir("wootz")) / name


def find(name: str, data_dir: Path | None = None) -> Path:
    """Return the first folder that holds all files of `name`.

    Raises:
        DataError: none does; names every place looked at and the command that fetches it.
    """
    for folder in places(name, data_dir):
        if all(_locate(folder, file) for file in SOURCES[name].files):
            return folder
    looked = ", ".join(str(folder) for folder in places(name, data_dir))
    raise DataError(f"{name}: not found in {looked}; fetch it with: wootz data fetch {name}")


def read(name: str, folder: Path) -> RawDataset:
    """Return the data set `name` from its files in `folder`, each checked against its published digest.

    Raises:
        DataError: a file is missing, can not be read, or is another one.
    """
    source = SOURCES[name]
    training, test = ([_array(name, folder, file) for file in files] for files in (source.training, source.test))
    return RawDataset(name, source.classes, source.format.share(training), source.format.share(test))


def fetch(name: str) -> Path:
    """Download `name` into the user cache, checked by SHA-256, and return the folder."""
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
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong hash a ValueError
            raise DataError(f"{name}: {served} can not be fetched from {source.url}: {error}") from error
    return folder


def _array(name: str, folder: Path, file: File) -> NDArray[np.uint8]:
    path = _locate(folder, file)
    if path is None:
        raise DataError(f"{folder / file.name}: missing")
    data, format_ = read_raw(path), SOURCES[name].format
    array = format_.parse(data, path)  # a truncated or mis-sized file says so itself
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise DataError(f"{path}: is {format_.name}, but not {name}'s (its SHA-256 differs from the published one)")
    return array


def _locate(folder: Path, file: File) -> Path | None:
    candidates = (folder / f"{file.name}.gz", folder / file.name)
    return next((path for path in candidates if path.is_file()), None)
