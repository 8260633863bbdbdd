"""Custom data sets in folders: one folder of images per class, or `train/` and `test/` with one each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from wootz.data.arrays import custom_dataset
from wootz.data.dataset import MOST_CLASSES, RawDataset, Split, Unlabelled
from wootz.data.decoding import IMAGE_SUFFIXES, Encoded, decode
from wootz.errors import DataError
from wootz.logs import warn_once

_PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
}
_LITTER = frozenset({"__MACOSX", "__pycache__", "@eaDir"})
_LISTED = 5


def load_folder(path: Path, *, size: int | None = None, skip_unreadable: bool = False) -> RawDataset:
    """Read a folder with one folder of images per class, or one that holds such a folder for each part.

    A class has the images in its folder and in all folders inside. The parts are `train` and `test`; `validation`
    is tested on where there is no `test`. Hidden files and folders and files that are no images are skipped, which one
    line on standard error reports. `size` and `skip_unreadable` see `decode`.
    """
    skipped: list[Path] = []
    roots = _parts(path, skipped)
    files = {part: _images_of(root, skipped) for part, root in roots.items()}
    classes = tuple(files["train"])
    for label in [label for label, images in files["train"].items() if not images]:
        raise DataError(f"{roots['train'] / label}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    for label in [label for label in files.get("test", {}) if label not in files["train"]]:
        raise DataError(f"{roots['test'] / label}: is the folder of a class that {roots['train']} does not have")
    _report_skipped(path, skipped)
    number = {label: index for index, label in enumerate(classes)}
    images = [(file, number[label]) for part in files.values() for label, paths in part.items() for file in paths]
    decoded = decode(str(path), [_encoded(file) for file, _ in images], size=size, skip_unreadable=skip_unreadable)
    everything = Split(decoded.pixels, torch.tensor([label for _, label in images])[decoded.numbers])
    cut = int((decoded.numbers < sum(map(len, files["train"].values()))).sum())
    training, test = everything.subset(slice(cut)), everything.subset(slice(cut, None))
    return custom_dataset(os.path.abspath(path), classes, training, test, unreadable=decoded.unreadable)


def load_images(path: Path, *, size: int | None = None, skip_unreadable: bool = False) -> Unlabelled:
    """Return all images in a folder and the folders inside, in the order of their paths."""
    skipped: list[Path] = []
    files = _walk(path, skipped)
    if not files:
        raise DataError(f"{path}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    _report_skipped(path, skipped)
    decoded = decode(str(path), [_encoded(file) for file in files], size=size, skip_unreadable=skip_unreadable)
    return Unlabelled(decoded.pixels, decoded.unreadable)


def _encoded(file: Path) -> Encoded:
    return Encoded(str(file), lambda: file)


def _report_skipped(path: Path, skipped: list[Path]) -> None:
    if skipped:
        listed = ", ".join(repr(str(entry.relative_to(path))) for entry in skipped[:_LISTED])
        warn_once(f"{path}: skipped {len(skipped)} that are no images of a class: {listed}")


def _parts(path: Path, skipped: list[Path]) -> Mapping[str, Path]:
    """Return the folders that hold class folders, by part; a folder without parts is `train` alone."""
    folders = [entry for entry in _entries(path) if entry.is_dir() and not _is_hidden(entry.name)]
    parts = {_PARTS.get(folder.name.lower(), ""): folder for folder in folders}
    if "train" not in parts or "" in parts or len(parts) < len(folders):
        return {"train": path}
    skipped += [entry for entry in _entries(path) if entry not in folders]
    test = parts.get("test", parts.get("validation"))
    if "validation" in parts and test is not parts["validation"]:
        skipped.append(parts["validation"])
    return {"train": parts["train"]} | ({"test": test} if test else {})


def _images_of(root: Path, skipped: list[Path]) -> dict[str, list[Path]]:
    """Return the image files of each class folder, in order."""
    classes: list[Path] = []
    for entry in _entries(root):
        is_class = entry.is_dir() and not _is_hidden(entry.name)
        (classes if is_class else skipped).append(entry)
    if len(classes) < 2:
        raise DataError(f"{root}: must hold one folder of images per class, and at least two classes")
    if len(classes) > MOST_CLASSES:
        raise DataError(f"{root}: has {len(classes)} classes; must have at most {MOST_CLASSES}")
    return {folder.name: _walk(folder, skipped) for folder in classes}


def _walk(folder: Path, skipped: list[Path]) -> list[Path]:
    """Return the images in a folder and all folders inside, links to folders included, each folder once."""
    images, seen = [], {os.path.realpath(folder)}
    for name, folders, files in os.walk(folder, followlinks=True):
        here = Path(name)
        skipped += [here / inner for inner in folders if _is_hidden(inner)]
        folders[:] = [inner for inner in sorted(folders) if not _is_hidden(inner)]
        inside = {os.path.realpath(here / inner): inner for inner in reversed(folders)}
        folders[:] = sorted(inner for real, inner in inside.items() if real not in seen)
        seen.update(inside)
        for entry in [here / one for one in (*folders, *files)]:
            if entry.suffix.lower() in IMAGE_SUFFIXES and not _is_hidden(entry.name):
                images.append(entry)
            elif entry.name in files:
                skipped.append(entry)
    return sorted(images)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _LITTER
