"""A script that queries an endpoint, to be killed by a test; its arguments are the URL and the transcript file."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from wootz.suspects.endpoints import Client, open_endpoint


def random_images(count: int, seed: int = 0) -> torch.Tensor:
    """Return distinct images [count, 1, 4, 4] of whole gray levels."""
    levels = torch.randint(0, 256, (count, 1, 4, 4), generator=torch.Generator().manual_seed(seed))
    return levels.float() / 255


if __name__ == "__main__":
    with open_endpoint(
        sys.argv[1], Client(budget=12, batch=2), access="scores", transcript=Path(sys.argv[2])
    ) as endpoint:
        endpoint(random_images(12))
