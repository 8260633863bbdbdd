"""Images and labels in the forms that PyTorch users have them, as wootz data sets and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from wootz.data import (
    Dataset,
    Split,
    as_labels,
    as_levels,
    as_shown,
    check_size,
    custom_dataset,
    fit,
    load,
    load_unlabelled,
    resize,
    split_dataset,
)
from wootz.errors import DataError

DataLike: TypeAlias = "Dataset | str | Path | TorchDataset[Any] | DataLoader[Any] | Split | Sequence[Tensor]"
"""A wootz data set or its name or path, a PyTorch data set or loader of (image, label) pairs, or (images, labels)."""

_IMAGE_KEYS, _LABEL_KEYS = ("image", "img", "pixel_values"), ("label", "labels", "fine_label")
_LISTED = 5


def as_dataset(
    data: DataLike,
    data_dir: Path | None = None,
    set_aside: float = 1.0,
    *,
    size: int | None = None,
    skip_unreadable: bool = False,
) -> Dataset:
    """Return the data as a data set with its fixed splits.

    Args:
        data: see `DataLike`. Images without splits of their own are split as `wootz.data.load` splits a folder.
        data_dir: folder that named data sets are looked up in first.
        set_aside: see `wootz.data.load`.
        size: see `wootz.data.load`; a wootz data set stays as it is.
        skip_unreadable: see `wootz.data.load`.

    Raises:
        DataError: see `as_split`.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        return load(str(data), data_dir, set_aside, size=size, skip_unreadable=skip_unreadable)
    split, name = as_split(data, size=size), type(data).__name__ if _has_rows(data) else "images"
    classes = tuple(str(label) for label in range(1 + int(split.labels.max())))
    raw = custom_dataset(name, classes, split, split.subset(slice(0)))
    return split_dataset(raw._replace(size=size), set_aside)


def as_images(
    data: DataLike | Tensor, data_dir: Path | None = None, *, size: int | None = None, skip_unreadable: bool = False
) -> Tensor:
    """Return images without labels, uint8 [N, C, H, W].

    Args:
        data: a tensor of images, the name or path of images (see `wootz.data.load_unlabelled`), a PyTorch data set of
            images, or see `DataLike`, whose labels are ignored.
        data_dir: folder that named data sets are looked up in first.
        size: see `wootz.data.load`.
        skip_unreadable: see `wootz.data.load`.

    Raises:
        DataError: see `as_split`.
    """
    check_size(size)
    if isinstance(data, str | Path):
        return load_unlabelled(str(data), data_dir, size=size, skip_unreadable=skip_unreadable).pixels
    if _has_rows(data):
        data = torch.stack([_image(_pair(row)[0], size) for row in _rows(data)])
    if not isinstance(data, Tensor):
        pixels = as_split(data, size=size).pixels
        return pixels if size is None else resize(pixels, size)
    return _levels(data, size)


def as_split(data: DataLike, *, size: int | None = None) -> Split:
    """Return images uint8 [N, C, H, W] and labels int64 [N]; of a wootz data set, its test split.

    Args:
        data: see `DataLike`. Images are integers in 0 to 255, or floats in [0, 1], which are rounded to 256 levels;
            labels are whole numbers [N] or [N, 1], or one-hot [N, K].
        size: see `wootz.data.load`.

    Raises:
        DataError: no images, images outside the range, or labels that do not fit.
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, Dataset):
        return data.test
    if isinstance(data, str | Path):
        return load(str(data)).test
    check_size(size)
    images, labels = _tensors(data, size)
    if len(images) == 0 or len(images) != len(labels):
        raise DataError(f"data: {len(images)} images and {len(labels)} labels; must be equally many, one at least")
    return Split(_levels(images, size), torch.from_numpy(as_labels("data", _array(labels))))


def _levels(images: Tensor, size: int | None) -> Tensor:
    if images.dim() != 4:
        raise DataError(f"data: images must be [N, C, H, W], these are {list(images.shape)}")
    (levels,) = as_levels("data", _array(images))
    pixels = torch.from_numpy(levels)
    return pixels if size is None else resize(pixels, size)


def _tensors(data: Any, size: int | None) -> tuple[Tensor, Tensor]:
    if isinstance(data, DataLoader):
        batches = [(_batch(x), torch.as_tensor(y)) for x, y in map(_pair, data)]
        return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    if _has_rows(data):
        pairs = [(_image(x, size), torch.as_tensor(y)) for x, y in map(_pair, _rows(data))]
        if len({(x.shape, x.dtype) for x, _ in pairs}) > 1:
            pairs = [(x.expand(3, *x.shape[1:]) if len(x) == 1 else x, y) for x, y in pairs]
        if len(shapes := {tuple(x.shape) for x, _ in pairs}) > 1:
            raise DataError(
                f"data: images are of several shapes ({', '.join(map(str, sorted(shapes)[:_LISTED]))}); images must "
                "have one size: size=N resizes and crops all to N x N"
            )
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])
    if isinstance(data, Iterable) and len(pair := list(cast("Sequence[Any]", data))) == 2:
        return _batch(pair[0]), torch.as_tensor(pair[1])
    raise DataError(
        f"data: {type(data).__name__} is not understood; give a data set or its name, a PyTorch Dataset or DataLoader "
        "of (image, label), or (images, labels)"
    )


def _has_rows(data: Any) -> bool:
    """Return whether this is a PyTorch data set, or one of Hugging Face, whose rows are mappings."""
    return isinstance(data, TorchDataset) or (hasattr(data, "column_names") and hasattr(data, "__getitem__"))


def _rows(data: Any) -> Iterator[Any]:
    return (data[index] for index in range(len(data)))


def _pair(row: Any) -> tuple[Any, Any]:
    """Return image and label (None if absent) of one row: a pair, or a mapping such as those of Hugging Face."""
    if isinstance(row, Mapping):
        image, label = (next((row[key] for key in keys if key in row), None) for keys in (_IMAGE_KEYS, _LABEL_KEYS))
        if image is None:
            raise DataError(f"data: its rows have no image ({', '.join(_IMAGE_KEYS)}); they have {', '.join(row)}")
        return image, label
    return tuple(row) if isinstance(row, tuple | list) and len(row) == 2 else (row, None)


def _batch(images: Any) -> Tensor:
    """Return a batch of images [N, C, H, W]."""
    return images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))


def _image(image: Any, size: int | None) -> Tensor:
    """Return one image as [C, H, W]; images of Pillow are read as they are shown, and resized to `size`."""
    if isinstance(image, Tensor):
        return image if size is None else _levels(image[None], size)[0]
    if isinstance(image, Image.Image):
        shown = as_shown(image)[0]
        image = shown if size is None else fit(shown, size)
    array = torch.from_numpy(np.array(image))
    return array[None] if array.dim() == 2 else array.movedim(-1, 0)


def _array(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array
