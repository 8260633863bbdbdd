"""Custom data sets in `.npz` files, of which nothing is expanded before its size is known."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wootz.data.arrays import as_labels, as_levels, check_classes, check_memory
from wootz.data.dataset import RawDataset, Split, hold_out_test
from wootz.errors import DataError
from wootz.logs import warn_once

_READ = ("x_train", "y_train", "x_test", "y_test", "classes")
_LISTED = 5
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_SMALL, _MAX_RATIO = 1 << 28, 100
"""Files that expand to more than `_SMALL` bytes may expand to `_MAX_RATIO` times their size; images compress less."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_npz(path: Path) -> RawDataset:
    """Read `x_train`, `y_train` and optionally `x_test` and `y_test`, `classes` from an `.npz` file.

    Images are [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels, see `as_levels`; labels see `as_labels`.
    """
    arrays = _read_arrays(path)
    if arrays["x_train"].dtype.kind == "f":
        warn_once(f"{path}: its images are floats; they are rounded to 256 levels")
    parts = [part for part in ("train", "test") if f"x_{part}" in arrays]
    levels = as_levels(str(path), *(arrays[f"x_{part}"] for part in parts))
    splits = [
        _as_split(f"{path}: {part}", images, arrays[f"y_{part}"]) for part, images in zip(parts, levels, strict=True)
    ]
    training, test = splits if len(splits) == 2 else hold_out_test(splits[0])
    count = 1 + int(splits[0].labels.max()) if len(splits[0]) else 0
    raw = RawDataset(os.path.abspath(path), _names(path, arrays.get("classes", np.arange(count))), training, test)
    check_classes(raw._replace(training=splits[0]))
    return raw


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise DataError(f"{path}: {'is not a plain file' if path.exists() else 'there is no such file'}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            _check_names(path, members)
            wanted = {name: member for name, member in members.items() if name in _READ}
            _check_members(path, wanted)
            return {name: _read_array(path, archive, member) for name, member in wanted.items()}
    except DataError:
        raise
    except Exception as error:  # on damaged files zipfile, zlib and numpy raise a dozen kinds, SyntaxError among them
        raise DataError(f"{path}: is not an .npz file of plain arrays, as np.savez writes it ({error})") from error


def _check_names(path: Path, names: Collection[str]) -> None:
    for name, other in (("x_train", "x_train"), ("y_train", "x_train"), ("x_test", "y_test"), ("y_test", "x_test")):
        if name not in names and (other in names or name == other):
            held = ", ".join(map(repr, list(names)[:_LISTED]))
            raise DataError(f"{path}: has no array {name!r}; it holds {held or 'nothing'}")
    if others := [repr(name) for name in names if name not in _READ]:
        warn_once(f"{path}: skipped the arrays {', '.join(others[:_LISTED])}; read are {', '.join(_READ)}")


def _check_members(path: Path, members: dict[str, zipfile.ZipInfo]) -> None:
    """Check what the zip file says of its members, before any is expanded."""
    for name, member in members.items():
        if member.flag_bits & _ENCRYPTED:
            raise DataError(f"{path}: {name} is encrypted; save it without a password")
        if member.compress_type not in _METHODS:
            raise DataError(
                f"{path}: {name} is compressed by method {member.compress_type}; save it with np.savez_compressed"
            )
    size = path.stat().st_size
    packed, expanded = (sum(getattr(m, f) for m in members.values()) for f in ("compress_size", "file_size"))
    if packed > size or (expanded > _SMALL and expanded > _MAX_RATIO * size):
        megabytes = f"{size / 1e6:,.1f} MB that would expand to {expanded / 1e6:,.0f} MB"
        raise DataError(f"{path}: {megabytes}; images do not compress so well")
    check_memory(str(path), expanded)


def _read_array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Return an array after its header was compared with the bytes that follow it."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise DataError(
                f"{path}: {member.filename} is of version {version} of the .npy format; 1.0 and 2.0 are read"
            )
        shape, fortran, dtype = _HEADERS[version](stream)
        offset = stream.tell()
        expected, actual = math.prod(shape) * dtype.itemsize, member.file_size - offset
        if dtype.hasobject:
            raise DataError(f"{path}: {member.filename} holds Python objects, not plain arrays of numbers or texts")
        if min(shape, default=0) < 0 or expected != actual:
            raise DataError(
                f"{path}: the header of {member.filename} declares {expected:,} bytes of shape {list(shape)}, "
                f"{actual:,} follow"
            )
        return np.frombuffer(stream.read(), dtype).reshape(shape, order="F" if fortran else "C")


def _as_split(where: str, images: NDArray[np.uint8], labels: NDArray[Any]) -> Split:
    shape, labels = list(images.shape), as_labels(where, labels)
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and shape[-1] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim != 4 or shape[1] not in (1, 3):
        raise DataError(
            f"{where}: images must be [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels, these are {shape}"
        )
    if len(images) != len(labels):
        raise DataError(f"{where}: {len(images)} images but {len(labels)} labels")
    return Split(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels))


def _names(path: Path, names: NDArray[Any]) -> tuple[str, ...]:
    if names.ndim != 1:
        raise DataError(f"{path}: classes must be a list of names, one per label; this is {list(names.shape)}")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names)
