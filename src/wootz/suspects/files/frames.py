"""What goes over the pipes between us and an isolated process: a letter, a length, that many bytes. Never a pickle.

J: JSON, in any direction. B: bytes, to the process. Q: images, `<4I` N C H W and float32. A: scores, `<2I` N K and
float32. W: a tensor's name and shape as JSON, to the process, and its float32 back, nothing where there is no such one.
E: an error, {"kind": ..., "text": ...}. All numbers are little endian.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct("<cQ")
_IMAGES, _SCORES = struct.Struct("<4I"), struct.Struct("<2I")


def frame(letter: bytes, *parts: bytes | memoryview) -> list[bytes | memoryview]:
    """Return what is to be written, in pieces."""
    return [HEAD.pack(letter, sum(len(part) for part in parts)), *parts]


def packed_images(x: NDArray[np.float32]) -> list[bytes | memoryview]:
    """Return images [N, C, H, W] as a frame."""
    return frame(b"Q", _IMAGES.pack(*x.shape), np.ascontiguousarray(x, "<f4").tobytes())


def unpacked_images(payload: bytes) -> NDArray[np.float32]:
    """Return the images in a frame."""
    return np.frombuffer(payload, "<f4", offset=_IMAGES.size).reshape(_IMAGES.unpack_from(payload))


def packed_scores(scores: NDArray[np.float32]) -> list[bytes | memoryview]:
    """Return scores [N, K] as a frame."""
    return frame(b"A", _SCORES.pack(*scores.shape), np.ascontiguousarray(scores, "<f4").tobytes())


def scores_length(count: int, classes: int) -> int:
    """Return how many bytes the payload with scores [count, classes] has."""
    return _SCORES.size + 4 * count * classes


def unpacked_scores(payload: bytes, count: int, classes: int) -> NDArray[np.float32] | None:
    """Return the scores in a frame if they are those of `count` images and `classes` classes, and None otherwise."""
    if len(payload) != scores_length(count, classes) or _SCORES.unpack_from(payload) != (count, classes):
        return None
    return np.frombuffer(payload, "<f4", offset=_SCORES.size).reshape(count, classes).astype(np.float32)
