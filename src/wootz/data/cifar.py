"""A strict reader of CIFAR-10's binary version: records of a label and the red, green and blue planes of an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wootz.data.dataset import Split
from wootz.errors import DataError

_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32


def parse_batch(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Return a batch's records, [N, 3073]: a label, then the pixels.

    Raises:
        DataError: names `path`; the file is empty or ends within a record.
    """
    if not data or len(data) % _RECORD:
        raise DataError(f"{path}: its {len(data)} bytes are no whole number of CIFAR-10 records of {_RECORD}")
    return np.frombuffer(data, np.uint8).reshape(-1, _RECORD)


def join_batches(batches: Sequence[NDArray[np.uint8]]) -> Split:
    """Return all batches' images and labels."""
    records = torch.from_numpy(np.concatenate(batches))
    return Split(records[:, 1:].reshape(-1, *_SHAPE), records[:, 0].long())
