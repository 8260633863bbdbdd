"""Custom data sets in tar files, as WebDataset writes them: `NAME.png` with its label, `NAME.cls` or `NAME.json`."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from wootz.data.arrays import as_labels, check_plain_file, custom_dataset
from wootz.data.dataset import RawDataset, Split, Unlabelled
from wootz.data.decoding import IMAGE_SUFFIXES, Encoded, decode
from wootz.errors import DataError
from wootz.logs import warn_once

_IMAGES = frozenset(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
_LABELS = frozenset({"cls", "json"})
_MOST_LABEL_BYTES, _MOST_IMAGE_BYTES = 1 << 20, 1 << 28
_JSON_KEYS = ("label", "cls", "class")
_LISTED = 5


def load_tar(path: Path, *, size: int | None = None, skip_unreadable: bool = False) -> RawDataset:
    """Read images and labels; labels are whole numbers, alone or as `label` in a JSON object.

    Nothing is written to disk. `size` and `skip_unreadable` see `decode`.
    """
    with _opened(path) as tar:
        images, labels = _members(path, tar)
        if missing := [name for name in images if name not in labels]:
            raise DataError(
                f"{path}: {len(missing)} images have no label ({', '.join(missing[:_LISTED])}); each NAME.png needs "
                "a NAME.cls or NAME.json"
            )
        numbers = [_label(path, tar, labels[name]) for name in images]
        encoded = [_encoded(path, tar, member) for member in images.values()]
        decoded = decode(str(path), encoded, size=size, skip_unreadable=skip_unreadable)
    known = torch.from_numpy(as_labels(str(path), np.array(numbers)))
    everything = Split(decoded.pixels, known[decoded.numbers])
    classes = tuple(map(str, range(1 + int(known.max()))))
    test = everything.subset(slice(0))
    return custom_dataset(os.path.abspath(path), classes, everything, test, unreadable=decoded.unreadable)


def load_tar_images(path: Path, *, size: int | None = None, skip_unreadable: bool = False) -> Unlabelled:
    """Return all images in a tar file, in their order."""
    with _opened(path) as tar:
        encoded = [_encoded(path, tar, member) for member in _members(path, tar)[0].values()]
        decoded = decode(str(path), encoded, size=size, skip_unreadable=skip_unreadable)
    return Unlabelled(decoded.pixels, decoded.unreadable)


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    check_plain_file(path)
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: is not a complete, uncompressed tar file ({error})") from error


def _members(path: Path, tar: tarfile.TarFile) -> tuple[dict[str, tarfile.TarInfo], dict[str, tarfile.TarInfo]]:
    """Return the images and the labels, by name without extension."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, tarfile.TarInfo] = {}
    skipped, limit = [], path.stat().st_size
    for member in tar:
        folder, _, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        kind = next((k for k, known in ((images, _IMAGES), (labels, _LABELS)) if extension.lower() in known), None)
        if kind is None or not stem or not member.isreg() or member.issparse():
            if not member.isdir():
                skipped.append(member.name)
            continue
        if member.size > min(limit, _MOST_IMAGE_BYTES if kind is images else _MOST_LABEL_BYTES):
            raise DataError(f"{path}: {member.name!r} has {member.size:,} bytes, more than such a file has")
        if kind is images and f"{folder}/{stem}" in images:
            raise DataError(f"{path}: holds several images named {member.name.rpartition('.')[0]!r}")
        kind[f"{folder}/{stem}"] = member
    if not images:
        raise DataError(f"{path}: holds no images ({', '.join(sorted(_IMAGES))})")
    if skipped:
        listed = ", ".join(map(repr, skipped[:_LISTED]))
        warn_once(f"{path}: skipped {len(skipped)} that are no images or labels: {listed}")
    return images, labels


def _encoded(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Encoded:
    return Encoded(f"{path}: {member.name}", partial(_stream, tar, member))


def _stream(tar: tarfile.TarFile, member: tarfile.TarInfo) -> io.BytesIO:
    file = tar.extractfile(member)
    assert file is not None  # only regular files are listed
    return io.BytesIO(file.read())


def _label(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    text = _stream(tar, member).getvalue()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        value = next((value[key] for key in _JSON_KEYS if key in value), None)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 62:
        raise DataError(f"{path}: {member.name!r} holds no whole number as a label: {text[:40]!r}")
    return value
