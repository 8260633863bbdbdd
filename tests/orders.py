"""A guard's log of ordered classes, suspects with opinions about which of the two it is, and ways to sway them."""

from __future__ import annotations

import torch
from torch import Tensor

from wootz.keys import PreferenceKey
from wootz.statistics.boundary_search import BoundarySearch
from wootz.types import Predict
from wrong_classes import BASE, K, N, draw, showing

__all__ = ["FIRST", "K", "LADDER", "N", "SECOND", "draw", "leaning", "ordered", "showing", "swaying"]

PIXELS = torch.stack([torch.arange(N), torch.full((N,), 128)], 1).to(torch.uint8).view(N, 1, 1, 2)
"""Of each image, its number, and a gray that ways make lighter towards the second class, darker to the first."""

FIRST, SECOND = BASE, (BASE + 1 + torch.arange(N) // K) % K


def ordered(seed: int = 0) -> PreferenceKey:
    """The log of a service: sixty images, each with the two classes that its model found likeliest."""
    stream = torch.Generator().manual_seed(seed)
    return PreferenceKey(
        mark="guard",
        num_classes=K,
        pixels=PIXELS,
        first=FIRST,
        second=SECOND,
        preferred=torch.rand(N, generator=stream) < 0.5,
    )


def leaning(far: Tensor) -> Tensor:
    """Return log-scores [N, K] that lean `far` [N] from the first class to the second, all others far below."""
    scores = torch.full((N, K), -20.0, dtype=torch.float64)
    scores[torch.arange(N), FIRST], scores[torch.arange(N), SECOND] = -far.double() / 2, far.double() / 2
    return scores


def swaying(far: Tensor) -> Predict:
    """Return a suspect that shows labels: the second class where it leans to it by `far` [N] and by the gray."""

    def predict(x: Tensor) -> Tensor:
        number, gray = (x.flatten(1)[:, place].mul(255).round() for place in (0, 1))
        return torch.where(far[number.long()] + (gray - 128) / 16 > 0, SECOND[number.long()], FIRST[number.long()])

    return predict


def _towards(x: Tensor, classes: Tensor) -> Tensor:
    number = x.flatten(1)[:, 0].mul(255).round().long()
    end = x.clone()
    end.flatten(1)[:, 1] += torch.where(classes == SECOND[number], 64, -64) / 255
    return end


LADDER = BoundarySearch(_towards, _towards, _towards, lambda x: torch.zeros(len(x), K), (0.5, 1.0), 1000)
"""Eight stops on the way to either class, each of half a unit of leaning."""
