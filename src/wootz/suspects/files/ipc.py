"""The messages between a verifier and an isolated process: a type (one letter), a length, a payload. Never a pickle.

J: JSON, in either direction. B: bytes, to the process. Q: images, `<4I` N C H W and float32. A: scores, `<2I` N K and
float32. W: a tensor's name and shape as JSON, to the process, and the tensor as float32 back, or nothing if there is no
such tensor. E: an error, {"kind": ..., "text": ...}. All numbers are little endian.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct("<cQ")
_IMAGES, _SCORES = struct.Struct("<4I"), struct.Struct("<2I")


def frame(letter: bytes, *parts: bytes | memoryview) -> list[bytes | memoryview]:
    """Return a message as the buffers to write."""
    return [HEAD.pack(letter, sum(len(part) for part in parts)), *parts]


def packed_images(x: NDArray[np.float32]) -> list[bytes | memoryview]:
    """Return images [N, C, H, W] as a message."""
    return frame(b"Q", _IMAGES.pack(*x.shape), np.ascontiguousarray(x, "<f4").tobytes())


def unpacked_images(payload: bytes) -> NDArray[np.float32]:
    """Return the images in a payload."""
    return np.frombuffer(payload, "<f4", offset=_IMAGES.size).reshape(_IMAGES.unpack_from(payload))


def packed_scores(scores: NDArray[np.float32]) -> list[bytes | memoryview]:
    """Return scores [N, K] as a message."""
    return frame(b"A", _SCORES.pack(*scores.shape), np.ascontiguousarray(scores, "<f4").tobytes())


def scores_length(count: int, classes: int) -> int:
    """Return the length of the payload with scores [count, classes], in bytes."""
    return _SCORES.size + 4 * count * classes


def unpacked_scores(payload: bytes, count: int, classes: int) -> NDArray[np.float32] | None:
    """Return the scores [count, classes] in a payload, or None if it has another shape."""
    if len(payload) != scores_length(count, classes) or _SCORES.unpack_from(payload) != (count, classes):
        return None
    return np.frombuffer(payload, "<f4", offset=_SCORES.size).reshape(count, classes).astype(np.float32)
