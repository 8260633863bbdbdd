"""The keyed answers of a served model: digests of images, and which class an `AnswerKey` sends for each.

The service and the judge use the same functions.

A digest is computed from whole numbers only, so that every computer obtains the same one. The pixels of an image, held
`margin` gray levels away from black and white so that noise there changes nothing, are summed with keyed signs cell by
cell; each sum is quantized in wide steps at a keyed offset. Nearby images share their digest unless the edge of a step
lies between them, and the edges are unknown without the key. If the parameters of the key contain `"digest": "exact"`
(mark `dawn`), the digest is a hash of the pixels, and nearby images have unrelated digests.

If they contain `"rule": "order"` (mark `guard`), the key prefers one class of each pair for each digest, by a fair
coin, and the service sends the preferred one of the two most likely classes. Otherwise (mark `dawn`) a keyed fraction
of the digests is answered with a keyed class, uniform over all classes but the model's answer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from wootz.keys.keys import AnswerKey
from wootz.keys.prf import integers, stream


class Projections(NamedTuple):
    """The keyed projections of which a digest is made.

    Attributes:
        signs: keyed signs, float64 [C * H * W, n].
        offsets: keyed offsets of the quantization, int64 [n].
        step: width of a quantization step.
        margin: gray levels next to black and to white that are merged.
    """

    signs: Tensor
    offsets: Tensor
    step: int
    margin: int


def projections(key: AnswerKey, shape: tuple[int, int, int]) -> Projections:
    """Return the projections of a key for images of `shape`; all pixels of a grid cell share one sign."""
    channels, height, width = shape
    grid, count = int(key.params["grid"]), int(key.params["projections"])
    step = round(int(key.params["step"]) * math.sqrt(channels * height * width))
    cell_signs = integers(key.secret, b"signs", count * channels * grid * grid, 2) * 2 - 1
    rows, columns = torch.arange(height) * grid // height, torch.arange(width) * grid // width
    signs = cell_signs.view(count, channels, grid, grid)[:, :, rows][..., columns]
    words = stream(key.secret, b"offsets", 8 * count)
    offsets = [int.from_bytes(words[8 * n : 8 * n + 8], "big") % step for n in range(count)]
    return Projections(signs.flatten(1).T.double(), torch.tensor(offsets), step, int(key.params["margin"]))


def digests(at: Projections, pixels: Tensor) -> list[bytes]:
    """Images uint8 [N, C, H, W] -> digests of 16 bytes. Sums of whole numbers are exact in float64."""
    clamped = pixels.flatten(1).clamp(at.margin, 255 - at.margin).double() - at.margin
    cells = torch.div((clamped @ at.signs).long() + at.offsets, at.step, rounding_mode="floor")
    return [hashlib.sha256(row.astype("<i4").tobytes()).digest()[:16] for row in cells.numpy()]


def exact_digests(pixels: Tensor) -> list[bytes]:
    """Images uint8 [N, C, H, W] -> the first 16 bytes of the SHA-256 of the pixels of each."""
    return [hashlib.sha256(image.contiguous().numpy().tobytes()).digest()[:16] for image in pixels]


def digest_function(key: AnswerKey, shape: tuple[int, int, int]) -> Callable[[Tensor], list[bytes]]:
    """Return the function of this key from images uint8 [N, C, H, W] of `shape` to digests of 16 bytes."""
    return exact_digests if key.params.get("digest") == "exact" else partial(digests, projections(key, shape))


def prefers_classes(key: AnswerKey) -> bool:
    """Return whether the key chooses between the two most likely classes (`guard`), not among all (`dawn`)."""
    return key.params.get("rule") == "order"


def is_keyed(key: AnswerKey, digest: bytes) -> bool:
    """Return whether the key decides the answer: for every uncertain image (`guard`), or a fraction of all (`dawn`)."""
    if prefers_classes(key):
        return True
    share = Fraction(key.params["share"])
    return int.from_bytes(stream(key.secret, b"chosen/" + digest, 8), "big") < share * 2**64


def keyed_answer(key: AnswerKey, digest: bytes, base: int, second: int) -> int:
    """Return the class to send where the key decides.

    Args:
        key: the key of the mark.
        digest: digest of the image.
        base: the most likely class by the model's scores.
        second: the second most likely class.
    """
    return preferred_class(key, digest, base, second) if prefers_classes(key) else changed_class(key, digest, base)


def preferred_class(key: AnswerKey, digest: bytes, first: int, second: int) -> int:
    """Return the preferred one of two classes: a fair coin per digest and pair, whatever the order of the arguments."""
    low, high = sorted((first, second))
    coin = stream(key.secret, b"order/" + digest + bytes(f"/{low}/{high}", "ascii"), 1)[0] & 1
    return high if coin else low


def changed_class(key: AnswerKey, digest: bytes, base: int) -> int:
    """Return the class that is sent instead of `base`: uniform over the others.

    It is the first of two distinct keyed classes, or the second if the first is `base`. It therefore seldom depends on
    the model's answer, which is unstable near a decision boundary.
    """
    purpose = b"class/" + digest
    first = int(integers(key.secret, purpose + b"/1", 1, key.num_classes))
    step = int(integers(key.secret, purpose + b"/2", 1, key.num_classes - 1))
    return first if first != base else (first + 1 + step) % key.num_classes
