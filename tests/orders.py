"""A guard's log of ordered classes, and suspects with opinions about which of the two it is."""

from __future__ import annotations

import torch
from torch import Tensor

from wootz.ownership import OrderKey
from wrong_classes import BASE, K, N, draw, showing

__all__ = ["FIRST", "K", "N", "SECOND", "draw", "leaning", "ordered", "showing"]

FIRST, SECOND = BASE, (BASE + 1 + torch.arange(N) // K) % K


def ordered(seed: int = 0) -> OrderKey:
    """The log of a service: sixty images, each with the two classes that its model found likeliest."""
    stream = torch.Generator().manual_seed(seed)
    return OrderKey(
        mark="guard", num_classes=K, pixels=torch.arange(N).to(torch.uint8).view(N, 1, 1, 1), first=FIRST,
        second=SECOND, preferred=torch.rand(N, generator=stream) < 0.5,
    )  # fmt: skip


def leaning(far: Tensor) -> Tensor:
    """Return log-scores [N, K] that lean `far` [N] from the first class to the second, all others far below."""
    scores = torch.full((N, K), -20.0, dtype=torch.float64)
    scores[torch.arange(N), FIRST], scores[torch.arange(N), SECOND] = -far.double() / 2, far.double() / 2
    return scores
