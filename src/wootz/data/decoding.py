"""Encoded images as uint8 levels: as they are shown, in one size, one after the other into one array."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wootz import checks
from wootz.data.arrays import as_levels, check_memory
from wootz.errors import DataError
from wootz.logs import warn_once, with_progress

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".webp", ".tif", ".tiff"})
"""Extensions of the files that are read as images."""

_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP", "TIFF")
_GRAY, _DEEP = ("1", "L", "LA", "La"), ("I", "I;16", "I;16B", "I;16L")
_MOST_PIXELS = 1 << 24
_SMALLEST, _LARGEST = 8, 4096
_LISTED = 5


class Encoded(NamedTuple):
    """An encoded image.

    Attributes:
        name: its place, for messages.
        open: returns a path or a stream for Pillow, or an image of Pillow.
    """

    name: str
    open: Callable[[], Path | IO[bytes] | Image.Image]


class Decoded(NamedTuple):
    """Decoded images.

    Attributes:
        pixels: uint8 [M, C, H, W], RGB if any image has colour.
        numbers: int64 [M], the numbers of the images that were read.
        unreadable: the number of the others.
    """

    pixels: Tensor
    numbers: Tensor
    unreadable: int


def check_size(size: int | None) -> None:
    """Raise ConfigError unless `size` is None or a possible side of images."""
    if size is not None:
        checks.within(_SMALLEST, _LARGEST, size=size)


def decode(where: str, images: Sequence[Encoded], *, size: int | None, skip_unreadable: bool) -> Decoded:
    """Decode images: rotated as their EXIF tag says, transparent parts over white, 16 bits rounded to 8.

    What was changed is reported by one line on standard error.

    Args:
        where: the data set, for messages.
        images: the images, one at least.
        size: the shorter side is resized to `size`, and the middle `size` x `size` is kept; None requires one size.
        skip_unreadable: leave out images that cannot be read, which is reported, instead of refusing them.

    Raises:
        DataError: images cannot be read, which names the first ones and their number, or they differ in size.
    """
    channels = 3 if any(map(_has_colour, images)) else 1
    pixels: NDArray[np.uint8] | None = None
    changes: Counter[str] = Counter()
    unreadable: list[str] = []
    index: list[int] = []
    for number, image in enumerate(with_progress(f"{where}: reading images", images)):
        shape = None if pixels is None or size is not None else (images[index[0]].name, pixels.shape[1:3])
        try:
            levels, changed = _decode_one(image, shape, size)
        except _UnreadableError as error:
            unreadable.append(f"{image.name}: {error}")
            continue
        if pixels is None:
            check_memory(where, len(images) * levels.shape[0] * levels.shape[1] * channels)
            pixels = np.empty((len(images), *levels.shape[:2], channels), np.uint8)
        pixels[len(index)] = levels.reshape(*levels.shape[:2], -1)
        index.append(number)
        changes.update(changed)
    _report(where, unreadable, skip_unreadable)
    if pixels is None:
        raise DataError(f"{where}: none of its images can be read")
    if changes:
        counts = ", ".join(f"{count} {change}" for change, count in changes.items())
        warn_once(f"{where}: images were changed while they were read: {counts}")
    kept = pixels[: len(index)]
    if kept.max() == 1:
        (kept,) = as_levels(where, kept)
    return Decoded(torch.from_numpy(kept.transpose(0, 3, 1, 2)).contiguous(), torch.tensor(index), len(unreadable))


def fit(image: Image.Image, size: int) -> Image.Image:
    """Return the image with its shorter side resized to `size` (bicubic, antialiased), and its middle cropped."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)


def resize(pixels: Tensor, size: int) -> Tensor:
    """Return images uint8 [N, C, H, W] as uint8 [N, C, size, size], see `fit`."""
    from PIL import Image

    if pixels.shape[2:] == (size, size):
        return pixels
    if 0 in pixels.shape:
        return pixels.new_empty(len(pixels), pixels.shape[1], size, size)
    resized = np.empty((len(pixels), size, size, pixels.shape[1]), np.uint8)
    for number, image in enumerate(pixels.movedim(1, -1).numpy()):
        shown = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        resized[number] = np.asarray(fit(shown, size)).reshape(size, size, -1)
    return torch.from_numpy(resized.transpose(0, 3, 1, 2)).contiguous()


def as_shown(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return the image as it is shown, in mode L or RGB, and what was changed for that.

    Raises:
        DataError: its levels are fractions, or of more than 16 bits.
    """
    from PIL import Image, ImageOps

    gray = image.mode in _GRAY
    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP:
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise _UnreadableError(f"has levels from {deep.min()} to {deep.max()}; 8 and 16 bits are read")
        return Image.fromarray(np.rint(deep / 257).astype(np.uint8)), ["of 16 bits rounded to 8"]
    if image.mode == "F":
        raise _UnreadableError("has floating-point levels; 8 and 16 bits are read")
    changes = []
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema()[0] != 255:
            changes.append("with transparency laid over white")
        background = Image.new("RGBA", layer.size, "white")
        background.alpha_composite(layer)
        image = background
    return image.convert("L" if gray else "RGB"), changes


class _UnreadableError(DataError):
    """One image cannot be read; the message is the reason without the image's name."""


def _decode_one(
    encoded: Encoded, first: tuple[str, tuple[int, ...]] | None, size: int | None
) -> tuple[NDArray[np.uint8], list[str]]:
    """Return one image, uint8 [H, W] or [H, W, 3], and what was changed.

    Args:
        encoded: the image.
        first: name, height and width of the first image, which it must agree with; None does not compare.
        size: see `decode`.
    """
    changes: list[str] = []
    levels = None
    try:
        with _quiet_pillow(), _opened(encoded) as image:
            width, height = image.size
            if size is not None:
                image.draft(None, (2 * size, 2 * size))  # JPEG is decoded at the smallest scale that suffices
            elif width * height > _MOST_PIXELS:
                raise _UnreadableError(f"is {width}x{height}; images must have at most {_MOST_PIXELS:,} pixels")
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # cameras add a preview as a second frame
                raise _UnreadableError(f"holds {image.n_frames} images; save each in a file of its own")  # type: ignore[attr-defined]
            if first is None or {width, height} == set(first[1]):  # sizes are compared before anything is decoded
                shown, changes = as_shown(image)
                levels = np.asarray(shown if size is None else fit(shown, size))
                height, width = levels.shape[:2]  # after rotation
    except _UnreadableError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise a dozen kinds
        raise _UnreadableError(f"is not a complete image ({error})") from error
    if first is not None and (height, width) != first[1]:
        name, (expected_height, expected_width) = first
        raise DataError(
            f"{encoded.name}: is {width}x{height}, but {name} is {expected_width}x{expected_height}; images must have "
            "one size: --size N (size=N in Python) resizes and crops all to N x N"
        )
    assert levels is not None
    return levels, changes


def _opened(encoded: Encoded) -> Image.Image:
    """Open an image without decoding it."""
    from PIL import Image

    source = encoded.open()
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, Path) and not source.is_file():
        raise _UnreadableError("is not a plain file")
    return Image.open(source, formats=_FORMATS)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Suppress the warnings of Pillow; that of an image which expands to too much is an error."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _has_colour(encoded: Encoded) -> bool:
    """Return whether an image has colour; one that cannot be opened has none."""
    try:
        with _quiet_pillow(), _opened(encoded) as image:
            return image.mode not in (*_GRAY, *_DEEP, "F")
    except Exception:  # it is opened again, and reported then
        return False


def _report(where: str, unreadable: Sequence[str], skip: bool) -> None:
    if not unreadable:
        return
    listed = " ".join("; ".join(unreadable[:_LISTED]).split())
    more = f"; and {len(unreadable) - _LISTED} more" if len(unreadable) > _LISTED else ""
    if not skip:
        raise DataError(
            f"{where}: {len(unreadable)} images cannot be read ({listed}{more}); repair or remove them, or go on "
            "without them by --skip-unreadable (skip_unreadable=True in Python)"
        )
    warn_once(f"{where}: skipped {len(unreadable)} images that cannot be read ({listed}{more})")
