"""What a guarded service shows, as a function of the key: an image's digest, whether it decides, for what; and the log.

The service and the judge use the same functions. A digest is made of whole numbers alone, so that every computer
finds the same one: the image's pixels, held off black and white so that noise can not push them, are added up with
keyed signs cell by cell; each sum is cut into wide steps at a keyed offset. Nearby images share their digest
unless a step's edge lies between them, and nobody without the key knows where edges lie. Where a key's facts say
`"digest": "exact"` (mark `dawn`), an image's pixels are its digest, and nearby images have nothing in common.

Where they say `"rule": "order"` (mark `guard`), the key prefers one of any two classes for each digest, by a fair coin,
and the service shows that one of the two that its model finds likeliest. Otherwise (mark `dawn`) a keyed share of the
digests is answered with a keyed class, uniform over all but the model's.

The log is JSON lines. Its first line names the key and the gap (see `wootz.watermarks.guard`); every other one holds an
image whose answer the key decided, the two classes that the model finds likeliest (`base` first), and the answer. Each
line ends with a chain hash, SHA-256(chain before || the line's other fields as canonical JSON), so the last one seals
all lines before it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wootz.errors import StoreError
from wootz.keys.keys import AnswerKey, LabelKey, PreferenceKey
from wootz.keys.prf import integers, stream
from wootz.store import canonical, read_bytes, whole_lines

PROTOCOL = "wootz-guard/2"


class Projections(NamedTuple):
    """Keyed signs float64 [C * H * W, n], keyed offsets int64 [n], the width of a step, and the margin in levels."""

    signs: Tensor
    offsets: Tensor
    step: int
    margin: int


def projections(key: AnswerKey, shape: tuple[int, int, int]) -> Projections:
    """Return the projections of a key for images of `shape`; one sign holds for a whole cell of the grid."""
    channels, height, width = shape
    grid, count = int(key.params["grid"]), int(key.params["projections"])
    step = round(int(key.params["step"]) * math.sqrt(channels * height * width))
    drawn = integers(key.secret, b"signs", count * channels * grid * grid, 2) * 2 - 1
    rows, columns = torch.arange(height) * grid // height, torch.arange(width) * grid // width
    signs = drawn.view(count, channels, grid, grid)[:, :, rows][..., columns]
    words = stream(key.secret, b"offsets", 8 * count)
    offsets = [int.from_bytes(words[8 * n : 8 * n + 8], "big") % step for n in range(count)]
    return Projections(signs.flatten(1).T.double(), torch.tensor(offsets), step, int(key.params["margin"]))


def digests(at: Projections, pixels: Tensor) -> list[bytes]:
    """Images uint8 [N, C, H, W] -> 16 bytes each. Sums of whole numbers are exact in float64."""
    held = pixels.flatten(1).clamp(at.margin, 255 - at.margin).double() - at.margin
    cells = torch.div((held @ at.signs).long() + at.offsets, at.step, rounding_mode="floor")
    return [hashlib.sha256(row.astype("<i4").tobytes()).digest()[:16] for row in cells.numpy()]


def exact_digests(pixels: Tensor) -> list[bytes]:
    """Images uint8 [N, C, H, W] -> the first 16 bytes of the SHA-256 of each one's pixels."""
    return [hashlib.sha256(image.contiguous().numpy().tobytes()).digest()[:16] for image in pixels]


def digester(key: AnswerKey, shape: tuple[int, int, int]) -> Callable[[Tensor], list[bytes]]:
    """Return what sums up images uint8 [N, C, H, W] of `shape`, in 16 bytes each, as this key's facts say."""
    return exact_digests if key.params.get("digest") == "exact" else partial(digests, projections(key, shape))


def orders(key: AnswerKey) -> bool:
    """Whether the key puts two classes in order (mark `guard`), instead of changing answers to any class (`dawn`)."""
    return key.params.get("rule") == "order"


def chosen(key: AnswerKey, digest: bytes) -> bool:
    """Whether the key decides the answer to an image: to each of which the model is unsure, or to a share of all."""
    if orders(key):
        return True
    rate = Fraction(key.params["share"])
    return int.from_bytes(stream(key.secret, b"chosen/" + digest, 8), "big") < rate * 2**64


def keyed_class(key: AnswerKey, digest: bytes, base: int, second: int) -> int:
    """Return the class that is shown where the key decides; `base` and `second` are those the model finds likeliest."""
    return preferred_class(key, digest, base, second) if orders(key) else changed_class(key, digest, base)


def preferred_class(key: AnswerKey, digest: bytes, one: int, other: int) -> int:
    """Return which of two classes is preferred: a fair coin for each digest and pair, in whatever order they come."""
    low, high = sorted((one, other))
    coin = stream(key.secret, b"order/" + digest + bytes(f"/{low}/{high}", "ascii"), 1)[0] & 1
    return high if coin else low


def changed_class(key: AnswerKey, digest: bytes, base: int) -> int:
    """Return the class that is shown instead of `base`: uniform over the others.

    It is the first of two distinct keyed classes, or the second where the first is `base`; so it seldom depends on
    the model's answer, which wavers near a boundary.
    """
    purpose = b"class/" + digest
    first = int(integers(key.secret, purpose + b"/1", 1, key.num_classes))
    step = int(integers(key.secret, purpose + b"/2", 1, key.num_classes - 1))
    return first if first != base else (first + 1 + step) % key.num_classes


class Log(NamedTuple):
    """A checked log: shape and gap from its first line; pixels uint8 [n, C, H, W], base, second, answer int64 [n].

    `digests` are of the images in order, `chains` the chain hashes in hexadecimal with the first line's, and `size`
    the length in bytes of all whole lines.
    """

    shape: tuple[int, int, int]
    gap: float
    pixels: Tensor
    base: Tensor
    second: Tensor
    answer: Tensor
    digests: tuple[bytes, ...]
    chains: tuple[str, ...]
    size: int


def first_line(key: AnswerKey, shape: tuple[int, int, int], gap: float) -> dict[str, Any]:
    """Return the fields of a log's first line."""
    return {"protocol": PROTOCOL, "key": _name(key), "shape": list(shape), "gap": repr(gap)}


def later_line(pixels: Tensor, digest: bytes, base: int, second: int, answer: int) -> dict[str, Any]:
    """Return the fields of the line for one image uint8 [C, H, W]."""
    image = base64.b64encode(pixels.contiguous().numpy().tobytes()).decode()
    return {"image": image, "digest": digest.hex(), "base": base, "second": second, "answer": answer}


def chained(before: str, fields: Mapping[str, Any]) -> str:
    """Return the chain hash of a line, in hexadecimal."""
    return hashlib.sha256(bytes.fromhex(before) + canonical(fields)).hexdigest()


def read_log(key: AnswerKey, path: Path, shape: Sequence[int] | None = None) -> Log:
    """Read a log, and check its chain and that each line is what the key makes of its image.

    A last line that was cut off is left out: its answer was never sent.

    Raises:
        StoreError: it can not be read, was changed, or belongs to another key; names the line.
    """
    data = whole_lines(read_bytes(path))
    chains: list[str] = []
    fields: list[dict[str, Any]] = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            entry = json.loads(line)
            stated = entry.pop("chain")
            good = stated == chained(chains[-1] if chains else "", entry)
        except (ValueError, KeyError, TypeError, AttributeError):
            good = False
        if not good:
            raise StoreError(f"{path}, line {number}: was changed, or lines before it were; a log is only added to")
        chains.append(stated)
        fields.append(entry)
    try:
        if shape is not None and fields[0]["shape"] != list(shape):
            raise StoreError(f"{path}: is of images {fields[0]['shape']}, not {list(shape)}")
        return _log(key, path, fields, tuple(chains), len(data))
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise StoreError(f"{path}: is no log of a guard ({' '.join(repr(error).split())})") from error


def key_from_log(key: AnswerKey, path: Path, *, count: int | None = None) -> LabelKey | PreferenceKey:
    """Return the images whose answers the key decided, with what it made of them drawn again from it, to be tested.

    Args:
        key: of the mark.
        path: the log.
        count: take the first so many images only; None takes all.

    Raises:
        StoreError: see `read_log`.
    """
    log = read_log(key, path)
    pixels, base, second, answer = (part[:count] for part in (log.pixels, log.base, log.second, log.answer))
    if orders(key):
        return PreferenceKey(
            mark=key.mark,
            num_classes=key.num_classes,
            pixels=pixels,
            first=base,
            second=second,
            preferred=answer == second,
        )
    return LabelKey(
        mark=key.mark,
        rule="wrong",
        num_classes=key.num_classes,
        pixels=pixels,
        base_pixels=pixels,
        base=base,
        labels=answer,
        logged=True,
    )


class LogLength(NamedTuple):
    """How many of a sealed log's first images count in a claim, and the bits that come off for the choice."""

    images: int
    bits: float


def log_length(lines: int) -> LogLength:
    """Return how many of the first `lines` images of a sealed log count.

    A log is a growing list, and its owner chooses where to seal it. So a log counts up to one of a fixed series of
    lengths, 64 * 2^(j/4) rounded, of which length j has the prior weight 1 / (4 (o + 1)(o + 2)) with o = j // 4; the
    weights sum to 1, and -log2 of the weight comes off the bits (a union bound over all lengths).
    """
    fits = [(round(64 * 2 ** (j / 4)), j // 4) for j in range(100) if round(64 * 2 ** (j / 4)) <= lines]
    if not fits:
        return LogLength(0, 0.0)
    images, octave = fits[-1]
    return LogLength(images, math.log2(4 * (octave + 1) * (octave + 2)))


def _log(key: AnswerKey, path: Path, fields: list[dict[str, Any]], chains: tuple[str, ...], size: int) -> Log:
    head, lines = fields[0], fields[1:]
    if head["protocol"] != PROTOCOL or head["key"] != _name(key):
        raise StoreError(f"{path}: is the log of another key, or of another version of wootz")
    channels, height, width = (int(side) for side in head["shape"])
    raw = b"".join(base64.b64decode(line["image"], validate=True) for line in lines)
    pixels = torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
    pixels = pixels.view(len(lines), channels, height, width)
    made = digester(key, (channels, height, width))(pixels)
    pairs = [(int(line["base"]), int(line["second"])) for line in lines]
    answer = [keyed_class(key, digest, *pair) for digest, pair in zip(made, pairs, strict=True)]
    known: set[bytes] = set()
    for number, (line, digest, (b, s), a) in enumerate(zip(lines, made, pairs, answer, strict=True), 2):
        right = {"digest": digest.hex(), "base": b, "second": s, "answer": a, "image": line["image"]} == line
        classes = range(key.num_classes)
        if not right or digest in known or b == s or not {b, s} <= {*classes} or not chosen(key, digest):
            raise StoreError(f"{path}, line {number}: is not what this key makes of the image")
        known.add(digest)
    return Log(
        shape=(channels, height, width),
        gap=float(head["gap"]),
        pixels=pixels,
        base=torch.tensor([b for b, _ in pairs]).long(),
        second=torch.tensor([s for _, s in pairs]).long(),
        answer=torch.tensor(answer).long(),
        digests=tuple(made),
        chains=chains,
        size=size,
    )


def _name(key: AnswerKey) -> str:
    """Return what a log calls its key, which tells nothing of it."""
    return stream(key.secret, b"name", 16).hex()
