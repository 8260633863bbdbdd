"""Images and labels in the forms that PyTorch users have them, as wootz data sets and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from wootz.data import Dataset, RawDataset, Split, as_labels, as_levels, check_classes, load, split_dataset
from wootz.errors import DataError
from wootz.rng import generator

DataLike: TypeAlias = "Dataset | str | Path | TorchDataset[Any] | DataLoader[Any] | Split | Sequence[Tensor]"
"""A wootz data set or its name or path, a PyTorch data set or loader of (image, label) pairs, or (images, labels)."""

TEST_FRACTION = 1 / 6
"""Part of the images that becomes the test split where the data bring none."""


def as_dataset(data: DataLike, data_dir: Path | None = None, set_aside: float = 1.0) -> Dataset:
    """Return the data as a data set with its fixed splits.

    Args:
        data: see `DataLike`. Images without splits of their own are shuffled by a fixed seed; a sixth becomes the test
            split, the rest is split as `wootz.data.load` splits training images.
        data_dir: folder that named data sets are looked up in first.
        set_aside: see `wootz.data.load`.

    Raises:
        DataError: see `as_split`.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        return load(str(data), data_dir, set_aside)
    split, name = as_split(data), type(data).__name__ if isinstance(data, TorchDataset) else "images"
    order = torch.randperm(len(split), generator=generator(0, "test", len(split)))
    cut = round(TEST_FRACTION * len(split))
    classes = tuple(str(label) for label in range(1 + int(split.labels.max())))
    raw = RawDataset(name, classes, split.subset(order[cut:]), split.subset(order[:cut]))
    check_classes(raw._replace(training=split))
    return split_dataset(raw, set_aside)


def as_split(data: DataLike) -> Split:
    """Return images uint8 [N, C, H, W] and labels int64 [N]; of a wootz data set, its test split.

    Args:
        data: see `DataLike`. Images are integers in 0 to 255, or floats in [0, 1], which are rounded to 256 levels;
            labels are whole numbers [N] or [N, 1], or one-hot [N, K].

    Raises:
        DataError: no images, images outside the range, or labels that do not fit.
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, Dataset):
        return data.test
    if isinstance(data, str | Path):
        return load(str(data)).test
    images, labels = _tensors(data)
    if len(images) == 0 or len(images) != len(labels):
        raise DataError(f"data: {len(images)} images and {len(labels)} labels; must be equally many, one at least")
    if images.dim() != 4:
        raise DataError(f"data: images must be [N, C, H, W], these are {list(images.shape)}")
    (levels,) = as_levels("data", _array(images))
    return Split(torch.from_numpy(levels), torch.from_numpy(as_labels("data", _array(labels))))


def _tensors(data: Any) -> tuple[Tensor, Tensor]:
    if isinstance(data, DataLoader):
        batches = [(_image(x, batch=True), torch.as_tensor(y)) for x, y in data]
        return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    if isinstance(data, TorchDataset):
        pairs = [data[index] for index in range(len(data))]  # type: ignore[arg-type]
        return torch.stack([_image(x) for x, _ in pairs]), torch.stack([torch.as_tensor(y) for _, y in pairs])
    if isinstance(data, Iterable) and len(pair := list(cast("Sequence[Any]", data))) == 2:
        return _image(pair[0], batch=True), torch.as_tensor(pair[1])
    raise DataError(
        f"data: {type(data).__name__} is not understood; give a data set or its name, a PyTorch Dataset or DataLoader "
        "of (image, label), or (images, labels)"
    )


def _image(image: Any, *, batch: bool = False) -> Tensor:
    """Return one image as [C, H, W], or a batch of them as [N, C, H, W]; images of Pillow have channels last."""
    if isinstance(image, Tensor):
        return image
    array = torch.from_numpy(np.array(image))
    return array if batch else array[None] if array.dim() == 2 else array.movedim(-1, 0)


def _array(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array
