"""The log of keyed answers that a service writes: its format, its check against the key, and its use as a test key.

The log consists of JSON lines. The first line names the key and the uncertainty threshold (`gap`, see
`wootz.watermarks.answer_filter`). Every other line holds an image whose answer the key decided, the two most likely
classes by the model's scores (`base` is the first), and the answer. Each line ends with a chain hash, SHA-256(chain
hash of the line before || the other fields of the line as canonical JSON), so that the last one covers all lines.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wootz.errors import StoreError
from wootz.journal import whole_lines
from wootz.keys.keyed_answers import digest_function, is_keyed, keyed_answer, prefers_classes
from wootz.keys.keys import AnswerKey, LabelKey, PreferenceKey
from wootz.keys.prf import stream
from wootz.store import canonical, read_bytes

LOG_PROTOCOL = "wootz-guard/2"


class AnswerLog(NamedTuple):
    """A checked log.

    Attributes:
        shape: channels, height and width of the images.
        gap: the uncertainty threshold of the first line.
        pixels: the images, uint8 [n, C, H, W].
        base: the most likely class by the model's scores, int64 [n].
        second: the second most likely class, int64 [n].
        answer: the class that was sent, int64 [n].
        digests: digests of the images, in order.
        chains: chain hashes in hexadecimal, including that of the first line.
        size: length of all complete lines, in bytes.
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


def log_header(key: AnswerKey, shape: tuple[int, int, int], gap: float) -> dict[str, Any]:
    """Return the fields of the first line of a log, without the chain hash."""
    return {"protocol": LOG_PROTOCOL, "key": _key_name(key), "shape": list(shape), "gap": repr(gap)}


def log_entry(pixels: Tensor, digest: bytes, base: int, second: int, answer: int) -> dict[str, Any]:
    """Return the fields of the line for one image uint8 [C, H, W], without the chain hash."""
    image = base64.b64encode(pixels.contiguous().numpy().tobytes()).decode()
    return {"image": image, "digest": digest.hex(), "base": base, "second": second, "answer": answer}


def chain_hash(previous: str, fields: Mapping[str, Any]) -> str:
    """Return the chain hash of a line in hexadecimal, from that of the line before (empty for the first line)."""
    return hashlib.sha256(bytes.fromhex(previous) + canonical(fields)).hexdigest()


def read_log(key: AnswerKey, path: Path, shape: Sequence[int] | None = None) -> AnswerLog:
    """Read a log, and check its chain hashes and that each line follows from the key and its image.

    An incomplete last line is left out: its answer was never sent.

    Args:
        key: the key of the mark.
        path: the log file.
        shape: the expected channels, height and width of the images; None accepts any.

    Raises:
        StoreError: the log cannot be read, was changed, or belongs to another key; names the line.
    """
    data = whole_lines(read_bytes(path))
    chains: list[str] = []
    fields: list[dict[str, Any]] = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            entry = json.loads(line)
            chain = entry.pop("chain")
            valid = chain == chain_hash(chains[-1] if chains else "", entry)
        except (ValueError, KeyError, TypeError, AttributeError):
            valid = False
        if not valid:
            raise StoreError(f"{path}, line {number}: was changed, or a line before it was; logs are append-only")
        chains.append(chain)
        fields.append(entry)
    try:
        if shape is not None and fields[0]["shape"] != list(shape):
            raise StoreError(f"{path}: is of images {fields[0]['shape']}, not {list(shape)}")
        return _checked_log(key, path, fields, tuple(chains), len(data))
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise StoreError(f"{path}: is not a log of keyed answers ({' '.join(repr(error).split())})") from error


def key_from_log(key: AnswerKey, path: Path, *, count: int | None = None) -> LabelKey | PreferenceKey:
    """Return the logged images with their keyed answers, recomputed from the key, as a key that can be tested.

    Args:
        key: the key of the mark.
        path: the log file.
        count: number of images to use, from the first on; None uses all.

    Raises:
        StoreError: see `read_log`.
    """
    log = read_log(key, path)
    pixels, base, second, answer = (part[:count] for part in (log.pixels, log.base, log.second, log.answer))
    if prefers_classes(key):
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
    """The number of images of a sealed log, from the first on, that a claim may use, and the bits it costs."""

    images: int
    bits: float


def log_length(lines: int) -> LogLength:
    """Return how many of the first `lines` images of a sealed log count as evidence.

    A log grows, and its owner chooses when to seal it. Only the lengths 64 * 2^(j/4), rounded, are therefore used.
    Length j has the prior weight 1 / (4 (o + 1)(o + 2)) with o = j // 4; the weights sum to 1, and -log2 of the weight
    is subtracted from the bits (a union bound over all lengths).
    """
    lengths = [(round(64 * 2 ** (j / 4)), j // 4) for j in range(100) if round(64 * 2 ** (j / 4)) <= lines]
    if not lengths:
        return LogLength(0, 0.0)
    images, octave = lengths[-1]
    return LogLength(images, math.log2(4 * (octave + 1) * (octave + 2)))


def _checked_log(
    key: AnswerKey, path: Path, fields: list[dict[str, Any]], chains: tuple[str, ...], size: int
) -> AnswerLog:
    header, entries = fields[0], fields[1:]
    if header["protocol"] != LOG_PROTOCOL or header["key"] != _key_name(key):
        raise StoreError(f"{path}: is the log of another key, or of another version of wootz")
    channels, height, width = (int(side) for side in header["shape"])
    raw = b"".join(base64.b64decode(entry["image"], validate=True) for entry in entries)
    pixels = torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
    pixels = pixels.view(len(entries), channels, height, width)
    digests = digest_function(key, (channels, height, width))(pixels)
    pairs = [(int(entry["base"]), int(entry["second"])) for entry in entries]
    answers = [keyed_answer(key, digest, *pair) for digest, pair in zip(digests, pairs, strict=True)]
    seen: set[bytes] = set()
    for number, (entry, digest, (base, second), answer) in enumerate(
        zip(entries, digests, pairs, answers, strict=True), 2
    ):
        expected = {
            "image": entry["image"],
            "digest": digest.hex(),
            "base": base,
            "second": second,
            "answer": answer,
        }
        valid_classes = base != second and {base, second} <= {*range(key.num_classes)}
        if entry != expected or digest in seen or not valid_classes or not is_keyed(key, digest):
            raise StoreError(f"{path}, line {number}: does not follow from this key and the image")
        seen.add(digest)
    return AnswerLog(
        shape=(channels, height, width),
        gap=float(header["gap"]),
        pixels=pixels,
        base=torch.tensor([base for base, _ in pairs]).long(),
        second=torch.tensor([second for _, second in pairs]).long(),
        answer=torch.tensor(answers).long(),
        digests=tuple(digests),
        chains=chains,
        size=size,
    )


def _key_name(key: AnswerKey) -> str:
    """Return the name of a key in its logs, which reveals nothing about the key."""
    return stream(key.secret, b"name", 16).hex()
