"""Custom data sets in folders: one folder of images per class, or `train/` and `test/` with one each."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from wootz.data.arrays import as_levels, check_classes, check_memory
from wootz.data.dataset import MOST_CLASSES, RawDataset, Split, hold_out_test
from wootz.errors import DataError
from wootz.logs import warn_once

if TYPE_CHECKING:
    from PIL import Image

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".webp", ".tif", ".tiff"})
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP", "TIFF")
_PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
}
_LITTER = frozenset({"__MACOSX", "__pycache__", "@eaDir"})
_GRAY, _DEEP = ("1", "L", "LA", "La"), ("I", "I;16", "I;16B", "I;16L")
_MOST_PIXELS = 1 << 24
_LISTED = 5


def load_folder(path: Path) -> RawDataset:
    """Read a folder with one folder of images per class, or one that holds such a folder for each part.

    A class has the images in its folder and in all folders inside. The parts are `train` and `test`; `validation`
    is tested on where there is no `test`. Hidden files and folders and files that are no images are skipped, which one
    line on standard error reports. All images must have one size; they are RGB if any of them has colour.
    """
    skipped: list[Path] = []
    roots = _parts(path, skipped)
    files = {part: _images_of(root, skipped) for part, root in roots.items()}
    classes = tuple(files["train"])
    for label in [label for label, images in files["train"].items() if not images]:
        raise DataError(f"{roots['train'] / label}: holds no images ({', '.join(sorted(_SUFFIXES))})")
    for label in [label for label in files.get("test", {}) if label not in files["train"]]:
        raise DataError(f"{roots['test'] / label}: is the folder of a class that {roots['train']} does not have")
    if skipped:
        listed = ", ".join(repr(str(entry.relative_to(path))) for entry in skipped[:_LISTED])
        warn_once(f"{path}: skipped {len(skipped)} that are no images of a class: {listed}")
    decoded = _decode([file for part in files.values() for images in part.values() for file in images])
    splits, start = [], 0
    for part in files.values():
        labels = [classes.index(label) for label, images in part.items() for _ in images]
        stop = start + len(labels)
        splits.append(Split(torch.from_numpy(decoded[start:stop]), torch.tensor(labels, dtype=torch.int64)))
        start = stop
    training, test = splits if len(splits) == 2 else hold_out_test(splits[0])
    raw = RawDataset(os.path.abspath(path), classes, training, test)
    check_classes(raw._replace(training=splits[0]))
    return raw


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
    images = []
    for name, folders, files in os.walk(folder):
        here = Path(name)
        skipped += [here / inner for inner in folders if _is_hidden(inner)]
        folders[:] = [inner for inner in folders if not _is_hidden(inner)]
        for entry in [here / one for one in (*folders, *files)]:
            if entry.suffix.lower() in _SUFFIXES and not _is_hidden(entry.name):
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


def _decode(files: list[Path]) -> NDArray[np.uint8]:
    """Return all images, uint8 [N, C, H, W]; the size of each is compared with the first's before it is decoded."""
    images: list[NDArray[np.uint8]] = []
    changes: Counter[str] = Counter()
    for file in files:
        images.append(_decode_file(file, files[0], images[0].shape[:2] if images else None, changes))
        if len(images) == 1:
            check_memory(str(file.parent), len(files) * images[0].size)
    if changes:
        counts = ", ".join(f"{count} {change}" for change, count in changes.items())
        warn_once(f"{files[0].parent.parent}: images were changed while they were read: {counts}")
    if any(image.ndim == 3 for image in images):
        images = [image if image.ndim == 3 else np.repeat(image[:, :, None], 3, 2) for image in images]
    stacked = np.stack(images)
    (levels,) = as_levels(str(files[0].parent.parent), stacked)
    return np.ascontiguousarray(levels[:, None] if levels.ndim == 3 else levels.transpose(0, 3, 1, 2))


def _decode_file(file: Path, first: Path, size: tuple[int, ...] | None, changes: Counter[str]) -> NDArray[np.uint8]:
    """Return one image, uint8 [H, W] or [H, W, 3].

    Args:
        file: the file of the image.
        first: the file of the first image, for the message about sizes.
        size: height and width of the first image; None for the first image itself.
        changes: what was changed in how many images.
    """
    from PIL import Image

    if not file.is_file():
        raise DataError(f"{file}: is not a plain file")
    array = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as image:
                width, height = image.size
                if width * height <= _MOST_PIXELS and (size is None or {width, height} == set(size)):
                    array = _levels(image, file, changes)
                    height, width = array.shape[:2]  # after rotation
    except DataError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise a dozen kinds
        raise DataError(f"{file}: is not a complete image ({error})") from error
    if size is not None and (height, width) != size:
        raise DataError(f"{file}: is {width}x{height}, but {first} is {size[1]}x{size[0]}; images must have one size")
    if array is None:
        raise DataError(f"{file}: is {width}x{height}; images must have at most {_MOST_PIXELS:,} pixels")
    return array


def _levels(image: Image.Image, file: Path, changes: Counter[str]) -> NDArray[np.uint8]:
    """Return the image as it is shown: rotated as its EXIF tag says, transparent parts over white, in 8 bits."""
    from PIL import Image, ImageOps

    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # cameras add a preview as a second frame
        raise DataError(f"{file}: holds {image.n_frames} images; save each in a file of its own")  # type: ignore[attr-defined]
    gray = image.mode in _GRAY
    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP:
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise DataError(f"{file}: has levels from {deep.min()} to {deep.max()}; 8 and 16 bits are read")
        changes["of 16 bits rounded to 8"] += 1
        return np.rint(deep / 257).astype(np.uint8)
    if image.mode == "F":
        raise DataError(f"{file}: has floating-point levels; 8 and 16 bits are read")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema()[0] != 255:
            changes["with transparency laid over white"] += 1
        background = Image.new("RGBA", layer.size, "white")
        background.alpha_composite(layer)
        image = background
    return np.asarray(image.convert("L" if gray else "RGB"))
