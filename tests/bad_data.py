"""Damaged, hostile and mistaken data sets, each with a part of the one line that refuses it."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (120, 9, 9), dtype=np.uint8)
Y = np.arange(120) % 3


def arrays(**changes: object) -> Callable[[Path], Path]:
    """Return a maker of an `.npz` file with these arrays beside or instead of good ones; None leaves one out."""

    def make(place: Path) -> Path:
        held = {"x_train": X, "y_train": Y} | changes
        np.savez(place / "d.npz", **{name: array for name, array in held.items() if array is not None})
        return place / "d.npz"

    return make


def content(data: bytes) -> Callable[[Path], Path]:
    """Return a maker of an `.npz` file with these bytes."""

    def make(place: Path) -> Path:
        (place / "d.npz").write_bytes(data)
        return place / "d.npz"

    return make


def header(shape: str, kind: str = "|u1") -> bytes:
    """Return the header of an `.npy` file."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def members(x: bytes, y: bytes = header("(120,)", "<i8") + Y.tobytes()) -> Callable[[Path], Path]:
    """Return a maker of an `.npz` file with these bytes as its members."""

    def make(place: Path) -> Path:
        with zipfile.ZipFile(place / "d.npz", "w") as file:
            file.writestr("x_train.npy", x)
            file.writestr("y_train.npy", y)
        return place / "d.npz"

    return make


def patched(local: int, central: int, value: int) -> Callable[[Path], Path]:
    """Return a maker of an `.npz` file with one byte changed in the two headers of its first member."""

    def make(place: Path) -> Path:
        path = arrays()(place)
        data = bytearray(path.read_bytes())
        data[local] = data[data.find(b"PK\x01\x02") + central] = value
        path.write_bytes(data)
        return path

    return make


def good() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x_train=X, y_train=Y)
    return buffer.getvalue()


def expanding(place: Path) -> Path:
    """Make a file of 1.5 MB that expands to 1.5 GB."""
    count = 1500
    with zipfile.ZipFile(place / "d.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("x_train.npy", "w", force_zip64=True) as member:
            member.write(header(f"({count}, 1000, 1000)"))
            for _ in range(count):
                member.write(bytes(10**6))
        file.writestr("y_train.npy", header(f"({count},)", "<i8") + bytes(8 * count))
    return place / "d.npz"


def images(place: Path, *classes: str, count: int = 20, size: tuple[int, int] = (9, 9)) -> Path:
    """Make class folders with gray images, and return their folder."""
    for name in classes:
        (place / "d" / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(RANDOM.integers(0, 256, size, dtype=np.uint8)).save(place / "d" / name / f"{number}.png")
    return place / "d"


def folder(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    """Return a maker of two class folders, `a` and `b`, with something changed in them."""

    def make(place: Path) -> Path:
        path = images(place, "a", "b")
        change(path)
        return path

    return make


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, text: bytes = b"") -> bytes:
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return start + text + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def replaced(data: bytes, name: str = "a/0.png") -> Callable[[Path], Path]:
    """Return a maker of class folders in which one image has these bytes."""
    return folder(lambda path: (path / name).write_bytes(data))


SMALL = png(9, 9, bytes(90))
TEXT = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20 << 20)))

BAD_DATA: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing file": (lambda place: place / "d.npz", "there is no such file"),
    "folder named .npz": (lambda place: (place / "d.npz").mkdir() or place / "d.npz", "one folder of images per class"),
    "pipe named .npz": (lambda place: os.mkfifo(place / "d.npz") or place / "d.npz", "is not a plain file"),
    "objects": (arrays(y_train=np.array([{"a": 1}] * 120, dtype=object)), "holds Python objects"),
    "other arrays": (arrays(x_train=None, y_train=None, images=X), "has no array 'x_train'; it holds 'images'"),
    "fewer labels": (arrays(y_train=Y[:60]), "120 images but 60 labels"),
    "more labels": (arrays(x_train=X[:60]), "60 images but 120 labels"),
    "negative labels": (arrays(y_train=Y - 1), "labels from -1 to 1; must be numbered from 0"),
    "a large label": (arrays(y_train=np.where(Y == 1, 10**8, Y)), "labels from 0 to 100000000"),
    "a huge label": (arrays(y_train=np.where(Y == 1, 2**62, Y)), "labels from 0 to 4611686018427387904"),
    "labels beyond int64": (arrays(y_train=np.full(120, 2**64 - 1, np.uint64)), "18446744073709551615"),
    "fractions as labels": (arrays(y_train=Y + 0.5), "labels must be integers"),
    "NaN as labels": (arrays(y_train=np.full(120, np.nan)), "labels must be integers"),
    "texts as labels": (arrays(y_train=np.array(["a", "b", "c"])[Y]), "labels must be integers"),
    "several labels per image": (arrays(y_train=np.ones((120, 3), int)), "one-hot [N, K], these are int64 [120, 3]"),
    "one class": (arrays(y_train=Y * 0), "images of one class only"),
    "labels with gaps": (arrays(y_train=Y * 5), "no training image has label 1, 2, 3, 4, 6 and 3 more of 0 to 10"),
    "labels from 1": (arrays(y_train=Y + 1), "no training image has label 0 of 0 to 3"),
    "no images": (arrays(x_train=X[:0], y_train=Y[:0]), "too few to split"),
    "three images": (arrays(x_train=X[:3], y_train=Y[:3]), "too few to split"),
    "images of one pixel": (arrays(x_train=X[:, :1, :1]), "must be at least 8"),
    "images without pixels": (arrays(x_train=X[:, :0, :0]), "must be at least 8"),
    "floats of 0 to 255": (arrays(x_train=X.astype(float)), "images are float64 from 0 to 255"),
    "normalized floats": (arrays(x_train=X / 255 - 0.5), "normalization belongs into the model"),
    "NaN in images": (arrays(x_train=np.full(X.shape, np.nan)), "images are float64 from nan to nan"),
    "levels of 16 bits": (arrays(x_train=X.astype(np.uint16) * 257), "images are uint16 from 0 to"),
    "complex images": (arrays(x_train=X.astype(complex)), "images are complex128"),
    "five channels": (arrays(x_train=np.stack([X] * 5, -1)), "1 or 3 channels, these are [120, 9, 9, 5]"),
    "alpha": (arrays(x_train=np.stack([X] * 4, -1)), "1 or 3 channels, these are [120, 9, 9, 4]"),
    "flat images": (arrays(x_train=X.reshape(120, 81)), "1 or 3 channels, these are [120, 81]"),
    "too few names": (arrays(classes=np.array(["a", "b"])), "labels from 0 to 2, but names of 2 classes"),
    "surplus names": (arrays(classes=np.array(list("abcde"))), "no training image has label 3, 4 of 0 to 4"),
    "equal names": (arrays(classes=np.array(["a", "b", "a"])), "'a' occurs twice"),
    "names in a table": (arrays(classes=np.array([["a", "b"]] * 3)), "must be a list of names"),
    "control characters": (arrays(classes=np.array(["a\n\x1b[31m", "b", "c"])), r"'a\n\x1b[31m'"),
    "reversed text": (arrays(classes=np.array(["\u202e", "b", "c"])), r"'\u202e'"),
    "an empty name": (arrays(classes=np.array(["", "b", "c"])), "the class name ''"),
    "test images without labels": (arrays(x_test=X[:9]), "has no array 'y_test'"),
    "test labels without images": (arrays(y_test=Y[:9]), "has no array 'x_test'"),
    "test images of another size": (
        arrays(x_test=X[:9, :8, :8], y_test=Y[:9]),
        "training images are [1, 9, 9] and test images [1, 8, 8]",
    ),
    "test images of another kind": (arrays(x_test=X[:9] / 255.0, y_test=Y[:9]), "images are uint8 and float64"),
    "unknown test labels": (arrays(x_test=X[:9], y_test=Y[:9] + 9), "labels from 9 to 11; must be from 0 to 2"),
    "half a file": (content(good()[: len(good()) // 2]), "is not an .npz file"),
    "a flipped bit": (content(good()[:900] + bytes([good()[900] ^ 4]) + good()[901:]), "Bad CRC-32"),
    "zero bytes": (content(b""), "is not an .npz file"),
    "a renamed .npy file": (content(header("(120, 9, 9)") + X.tobytes()), "is not an .npz file"),
    "a pickle": (content(pickle.dumps(X)), "is not an .npz file"),
    "a header of 909 TiB": (members(header("(1000000000, 1000, 1000)") + b"1234"), "1,000,000,000,000,000 bytes"),
    "a negative shape": (members(header("(-5, 10, 10)") + b"1234"), "shape [-5, 10, 10]"),
    "a broken header": (members(b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16), "is not an .npz file"),
    "a deep header": (members(header("(" * 3000 + "1" + ")" * 3000)), "is not an .npz file"),
    "a file that expands": (expanding, "that would expand to 1,500 MB"),
    "an unknown compression": (patched(8, 10, 99), "compressed by method 99"),
    "a password": (patched(6, 8, 1), "is encrypted"),
    "an image of 3.6 billion pixels": (replaced(png(60000, 60000, bytes(1000))), "3600000000 pixels"),
    "an image of 121 million pixels": (replaced(png(11000, 11000, bytes(1000))), "121000000 pixels"),
    "an image of 25 million pixels": (replaced(png(5000, 5000, bytes(1000))), "5000x5000; images must have at most"),
    "half an image": (replaced(SMALL[:-30]), "a/0.png: is not a complete image"),
    "a damaged image": (replaced(SMALL[:45] + b"x" + SMALL[46:], "b/3.png"), "b/3.png: is not a complete image"),
    "a chunk without an end": (replaced(SMALL[:33] + struct.pack(">I", 2**31) + b"IDATxx"), "is not a complete image"),
    "a text of 20 MB in an image": (replaced(png(9, 9, bytes(90), TEXT)), "Decompressed data too large"),
    "another format by its content": (replaced(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "is not a complete image"),
    "a folder named .png": (folder(lambda path: (path / "a/zz.png").mkdir()), "zz.png: is not a plain file"),
    "a pipe named .png": (folder(lambda path: os.mkfifo(path / "a/zz.png")), "zz.png: is not a plain file"),
    "a link to nothing": (folder(lambda path: (path / "a/zz.png").symlink_to("/no")), "zz.png: is not a plain file"),
    "a class without images": (folder(lambda path: (path / "c").mkdir()), "c: holds no images"),
    "an image of another size": (
        folder(lambda path: Image.new("L", (9, 10)).save(path / "b/zz.png")),
        "b/zz.png: is 9x10, but",
    ),
    "several images in a file": (
        folder(
            lambda path: Image.new("L", (9, 9)).save(
                path / "b/z.tif", save_all=True, append_images=[Image.new("L", (9, 9))]
            )
        ),
        "z.tif: holds 2 images",
    ),
    "levels as fractions": (
        folder(lambda path: Image.new("F", (9, 9)).save(path / "b/z.tif")),
        "floating-point levels",
    ),
    "a class for testing only": (
        lambda place: images(place, "train/a", "train/b", "test/a", "test/c"),
        "does not have",
    ),
    "no class folders": (lambda place: place, "one folder of images per class"),
    "control characters in a folder": (lambda place: images(place, "a\nb", "c"), r"'a\nb'"),
    "a folder name that is no text": (lambda place: images(place, os.fsdecode(b"a\xff"), "c"), r"'a\udcff'"),
}
"""Name -> a maker of the data set in an empty folder, and a part of the message."""
