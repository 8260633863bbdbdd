"""Strict readers of the file formats of published data sets: IDX (MNIST and its relatives) and CIFAR-10's binary."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from wootz.data.dataset import Split
from wootz.errors import DataError

_MOST_BYTES = 1 << 27
_GZIP = b"\x1f\x8b"
_IDX_UINT8 = 0x08
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_RECORD = 1 + 3 * 32 * 32


def read_raw(path: Path) -> bytes:
    """Return the file's bytes, decompressed if its content (not its name) is gzip.

    Raises:
        DataError: the file is truncated, or has more bytes than any file of a published data set.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            data = gzip.GzipFile(fileobj=file).read(_MOST_BYTES + 1) if packed else file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read completely ({error})") from error
    if len(data) > _MOST_BYTES:
        raise DataError(f"{path}: has more than {_MOST_BYTES:,} bytes; no file of a published data set has")
    return data


def parse_idx(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes.

    Raises:
        DataError: another format or element type, a truncated header, or too few or too many bytes for the
            sizes in the header; the message names `path`.
    """
    if len(data) < 4 or data[:2] != b"\0\0":
        raise DataError(f"{path}: is not an IDX file (it begins with {data[:4].hex(' ') or 'nothing'})")
    kind, rank = data[2], data[3]
    if kind != _IDX_UINT8:
        raise DataError(f"{path}: holds IDX elements of type 0x{kind:02x}; only unsigned bytes (0x08) are read")
    header = 4 + 4 * rank
    if not 1 <= rank <= 4 or len(data) < header:
        raise DataError(f"{path}: IDX header of rank {rank} does not fit in {len(data)} bytes")
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank))
    expected, actual = math.prod(shape), len(data) - header
    if actual != expected:
        state = "truncated" if actual < expected else "too long"
        raise DataError(
            f"{path}: {state}: its header announces {expected} bytes of shape {shape}, the file holds {actual}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy()


def join_idx(arrays: Sequence[NDArray[np.uint8]]) -> Split:
    """Return gray images [N, H, W] and their labels [N] as one split."""
    images, labels = arrays
    return Split(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long())


def parse_cifar(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Return the records of one file of CIFAR-10's binary version.

    Returns:
        uint8 [N, 3073]: for each image its label, then its red, green and blue planes.

    Raises:
        DataError: the file is empty, or ends within a record; the message names `path`.
    """
    if not data or len(data) % _CIFAR_RECORD:
        raise DataError(f"{path}: its {len(data)} bytes are not a whole number of CIFAR-10 records of {_CIFAR_RECORD}")
    return np.frombuffer(data, np.uint8).reshape(-1, _CIFAR_RECORD)


def join_cifar(files: Sequence[NDArray[np.uint8]]) -> Split:
    """Return the images and labels of all files."""
    records = torch.from_numpy(np.concatenate(files))
    return Split(records[:, 1:].reshape(-1, *_CIFAR_SHAPE), records[:, 0].long())


class Format(NamedTuple):
    """A file format of published data sets.

    Attributes:
        name: the format's name, with its article.
        parse: a file's content and its path (for error messages) -> an array.
        join: the arrays of one split's files, in order -> its images and labels.
    """

    name: str
    parse: Callable[[bytes, Path], NDArray[np.uint8]]
    join: Callable[[Sequence[NDArray[np.uint8]]], Split]


IDX = Format("an IDX file", parse_idx, join_idx)
CIFAR = Format("a CIFAR-10 batch", parse_cifar, join_cifar)
