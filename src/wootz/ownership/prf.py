"""Everything random about a key, as a function of its secret: SHAKE-256 over secret and purpose.

The output depends on nothing else (no library's random stream), so a judge re-derives it in ten years.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

_MOST = 1 << 30


def stream(secret: bytes, purpose: bytes, length: int) -> bytes:
    """Return `length` bytes; secrets and purposes are prefixed by their lengths, so none is another's prefix.

    Raises:
        ValueError: more than 1 GiB, which no key takes; a registration could ask a judge for it.
    """
    if length > _MOST:
        raise ValueError(f"{length:,} random bytes; a key takes {_MOST:,} at most")
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in (secret, purpose))
    return hashlib.shake_256(framed).digest(length)


def subkey(secret: bytes, *purpose: str) -> bytes:
    """Return 32 bytes for a purpose."""
    return stream(secret, "/".join(purpose).encode(), 32)


def integers(secret: bytes, purpose: bytes, count: int, high: int) -> Tensor:
    """Return `count` int64 uniform on 0 .. high - 1, exactly (by rejection); `high` from 2 to 256."""
    limit = 256 - 256 % high
    length = 2 * count + 64
    while True:
        values = [byte % high for byte in stream(secret, purpose, length) if byte < limit]
        if len(values) >= count:
            return torch.tensor(values[:count])
        length *= 2


def gaussian(secret: bytes, purpose: bytes, shape: tuple[int, ...]) -> Tensor:
    """Return independent standard normal values, float64, by inverting the distribution at 53-bit uniforms."""
    count = int(np.prod(shape))
    words = np.frombuffer(stream(secret, purpose, 8 * count), dtype=">u8") >> np.uint64(11)
    return torch.from_numpy(ndtri((words.astype(np.float64) + 0.5) / 2.0**53)).view(shape)


def half(secret: bytes, purpose: bytes, count: int) -> Tensor:
    """Return a bool mask [count] with exactly count // 2 set, uniform over all such masks."""
    keys = np.frombuffer(stream(secret, purpose, 8 * count), dtype=">u8").astype(np.uint64)
    mask = torch.zeros(count, dtype=torch.bool)
    mask[torch.from_numpy(np.argsort(keys, kind="stable")[: count // 2])] = True
    return mask
