"""Custom data sets in `.npz` files, of which nothing is expanded before its size is known."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wootz.data.arrays import as_labels, as_levels, check_memory, check_plain_file, custom_dataset
from wootz.data.dataset import RawDataset, Split
from wootz.errors import DataError
from wootz.logs import warn_once

_NAMES = {
    **{
        spelling.format(part): f"x_{part}"
        for part in ("train", "test", "val")
        for spelling in ("x_{}", "X_{}", "{}_images")
    },
    **{
        spelling.format(part): f"y_{part}"
        for part in ("train", "test", "val")
        for spelling in ("y_{}", "Y_{}", "{}_labels")
    },
    "classes": "classes",
}
"""The name of an array in a file -> its name here."""

_IMAGES = {name for name, known in _NAMES.items() if known.startswith("x_")} | {"images", "x", "X"}
_LISTED = 5
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_SMALL, _MAX_RATIO = 1 << 28, 100
"""Files that expand to more than `_SMALL` bytes may expand to `_MAX_RATIO` times their size; images compress less."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_npz(path: Path) -> RawDataset:
    """Read `x_train`, `y_train` and optionally `x_test` and `y_test`, `classes` from an `.npz` file.

    `train_images` and `train_labels` are such names as well; `x_val` and `y_val` are tested on where there is no test
    split. Images are [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels, see `as_levels`; labels see
    `as_labels`.
    """
    arrays = _read_arrays(path, _labelled)
    if arrays["x_train"].dtype.kind == "f":
        warn_once(f"{path}: its images are floats; they are rounded to 256 levels")
    parts = [name.removeprefix("x_") for name in arrays if name.startswith("x_")]
    levels = as_levels(str(path), *(arrays[f"x_{part}"] for part in parts))
    splits = {
        part: Split(
            _as_pixels(f"{path}: {part}", images), torch.from_numpy(as_labels(f"{path}: {part}", arrays[f"y_{part}"]))
        )
        for part, images in zip(parts, levels, strict=True)
    }
    for part, (pixels, labels) in splits.items():
        if len(pixels) != len(labels):
            raise DataError(f"{path}: {part}: {len(pixels)} images but {len(labels)} labels")
    training = splits.pop("train")
    test = next(iter(splits.values()), training.subset(slice(0)))
    count = 1 + int(training.labels.max()) if len(training) else 0
    return custom_dataset(
        os.path.abspath(path), _class_names(path, arrays.get("classes", np.arange(count))), training, test
    )


def load_npz_images(path: Path) -> Tensor:
    """Return the images of all arrays of images in an `.npz` file, uint8 [N, C, H, W]."""
    arrays = _read_arrays(path, _images_only)
    levels = as_levels(str(path), *arrays.values())
    pixels = [_as_pixels(f"{path}: {name}", images) for name, images in zip(arrays, levels, strict=True)]
    if len(shapes := {tuple(images.shape[1:]) for images in pixels}) > 1:
        raise DataError(f"{path}: its images are of several shapes: {', '.join(map(str, sorted(shapes)))}")
    return torch.cat(pixels)


def _read_arrays(path: Path, choose: Callable[[Path, list[str]], dict[str, str]]) -> dict[str, NDArray[Any]]:
    """Return the chosen arrays; `choose` returns the name in the file -> the name in the result."""
    check_plain_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            chosen = choose(path, list(members))
            _check_members(path, {name: members[name] for name in chosen})
            return {chosen[name]: _read_array(path, archive, members[name]) for name in chosen}
    except DataError:
        raise
    except Exception as error:  # on damaged files zipfile, zlib and numpy raise a dozen kinds, SyntaxError among them
        raise DataError(f"{path}: is not an .npz file of plain arrays, as np.savez writes it ({error})") from error


def _labelled(path: Path, names: list[str]) -> dict[str, str]:
    found = {_NAMES[name]: name for name in reversed(names) if name in _NAMES}
    for name, other in (("x_train", "x_train"), ("y_train", "x_train"), ("x_test", "y_test"), ("y_test", "x_test")):
        if name not in found and (other in found or name == other):
            raise DataError(f"{path}: has no array {name!r}; it holds {_listed(names)}")
    wanted = ["x_train", "y_train"]
    wanted += next((part for part in (["x_test", "y_test"], ["x_val", "y_val"]) if set(part) <= set(found)), [])
    chosen = {found[name]: name for name in (*wanted, "classes") if name in found}
    if others := [name for name in names if name not in chosen]:
        warn_once(f"{path}: skipped the arrays {_listed(others)}; read are {', '.join(chosen)}")
    return chosen


def _images_only(path: Path, names: list[str]) -> dict[str, str]:
    chosen = {name: name for name in names if name in _IMAGES}
    if not chosen:
        raise DataError(f"{path}: has no array of images (such as 'images' or 'x_train'); it holds {_listed(names)}")
    return chosen


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_LISTED])) or "nothing"


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


def _as_pixels(where: str, images: NDArray[np.uint8]) -> Tensor:
    shape = list(images.shape)
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and shape[-1] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim != 4 or shape[1] not in (1, 3):
        raise DataError(
            f"{where}: images must be [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels, these are {shape}"
        )
    return torch.from_numpy(np.ascontiguousarray(images))


def _class_names(path: Path, names: NDArray[Any]) -> tuple[str, ...]:
    if names.ndim != 1:
        raise DataError(f"{path}: classes must be a list of names, one per label; this is {list(names.shape)}")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names)
