"""A strict reader of IDX files, plain or gzipped (the format of MNIST and its relatives)."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wootz.data.dataset import Split
from wootz.errors import DataError

_UINT8 = 0x08
_GZIP = b"\x1f\x8b"


def read_raw(path: Path) -> bytes:
    """Return the file's bytes, decompressed where it is gzip by content (whatever its name)."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(_GZIP) else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: can not be read whole ({error})") from error


def parse_idx(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Return the array that an IDX file of unsigned bytes holds.

    Raises:
        DataError: names `path` and what is wrong: another format or element type, a truncated header,
            too few or too many bytes for the sizes that the header gives.
    """
    if len(data) < 4 or data[:2] != b"\0\0":
        raise DataError(f"{path}: is not an IDX file (it begins with {data[:4].hex(' ') or 'nothing'})")
    kind, rank = data[2], data[3]
    if kind != _UINT8:
        raise DataError(f"{path}: holds IDX elements of type 0x{kind:02x}; only unsigned bytes (0x08) are read")
    header = 4 + 4 * rank
    if not 1 <= rank <= 4 or len(data) < header:
        raise DataError(f"{path}: IDX header of rank {rank} does not fit in {len(data)} bytes")
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank))
    due, there = math.prod(shape), len(data) - header
    if there != due:
        state = "truncated" if there < due else "too long"
        raise DataError(f"{path}: {state}: its header announces {due} bytes of shape {shape}, it holds {there}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy()


def join_idx(arrays: Sequence[NDArray[np.uint8]]) -> Split:
    """Return gray images [N, H, W] and their labels [N] as one."""
    images, labels = arrays
    return Split(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long())
