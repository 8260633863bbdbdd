"""A small guard's key, random images, and its log, written by the definition of the format."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from wootz.keys import AnswerKey
from wootz.keys.answer_log import log_entry, log_header
from wootz.keys.keyed_answers import digests, is_keyed, keyed_answer, projections
from wootz.store import canonical

K, SHAPE = 10, (1, 6, 6)
DIGEST_PARAMS = {"grid": 3, "projections": 8, "step": 100, "margin": 16}
PREFERENCE_PARAMS = {"rule": "order", "cost": "1/200", "most": "1/5"} | DIGEST_PARAMS
CHANGE_PARAMS = {"share": "1/2"} | DIGEST_PARAMS
FULL_SIZE_PARAMS = {"share": "1/20", "grid": 7, "projections": 64, "step": 1200, "margin": 16}


def make_key(secret: int = 0, params: dict[str, object] | None = None, classes: int = K) -> AnswerKey:
    return AnswerKey(
        mark="guard", num_classes=classes, params=params or PREFERENCE_PARAMS, secret=secret.to_bytes(32, "big")
    )


def random_images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, *SHAPE), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def write_log(path: Path, key: AnswerKey, count: int = 60) -> list[dict[str, object]]:
    """Write a log of random images, by the definition of the format, and return its lines without chains."""
    pixels = random_images(count)
    lines, seen = [log_header(key, SHAPE, 1.5)], set[bytes]()
    for number, (image, digest) in enumerate(zip(pixels, digests(projections(key, SHAPE), pixels), strict=True)):
        b = number % K
        if is_keyed(key, digest) and digest not in seen:
            second = (b + 1) % K
            lines.append(log_entry(image, digest, b, second, keyed_answer(key, digest, b, second)))
            seen.add(digest)
    save_lines(path, lines)
    return lines


def save_lines(path: Path, lines: list[dict[str, object]]) -> None:
    head, data = "", b""
    for line in lines:
        head = hashlib.sha256(bytes.fromhex(head) + canonical(line)).hexdigest()
        data += canonical(line | {"chain": head}) + b"\n"
    path.write_bytes(data)
