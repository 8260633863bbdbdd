"""Randomness as a pure function of a seed and a path.

The state of a generator is never saved: `generator(seed, "epoch", 7)` gives the same stream after a crash, in another
process, and in another order of calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed derived from `seed` and every element of `path`."""
    text = "/".join(str(step) for step in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new generator on `device`, seeded by `seed` and `path`."""
    return torch.Generator(device).manual_seed(derive(seed, *path))


@contextmanager
def global_seed(seed: int, *path: str | int) -> Iterator[None]:
    """Seed PyTorch's global stream (dropout, initialization) inside the block, and restore it afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(derive(seed, *path))
        yield
