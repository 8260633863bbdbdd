"""A guard's log of class pairs, suspects with given preferences between them, and paths that change these."""

from __future__ import annotations

import torch
from torch import Tensor

from wootz.keys import PreferenceKey
from wootz.statistics.boundary_search import BoundarySearch
from wootz.types import Predict
from wrong_classes import BASE, K, N, normal, scores_suspect

__all__ = [
    "FIRST",
    "K",
    "N",
    "PAIR_PATHS",
    "SECOND",
    "boundary_suspect",
    "normal",
    "pair_scores",
    "preference_key",
    "scores_suspect",
]

PIXELS = torch.stack([torch.arange(N), torch.full((N,), 128)], 1).to(torch.uint8).view(N, 1, 1, 2)
"""The number of each image, and a gray that paths make lighter towards the second class, darker towards the first."""

FIRST, SECOND = BASE, (BASE + 1 + torch.arange(N) // K) % K


def preference_key(seed: int = 0) -> PreferenceKey:
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


def pair_scores(preferences: Tensor) -> Tensor:
    """Return log-scores [N, K] with these differences [N] of the second and the first class, the others far below."""
    scores = torch.full((N, K), -20.0, dtype=torch.float64)
    scores[torch.arange(N), FIRST], scores[torch.arange(N), SECOND] = (
        -preferences.double() / 2,
        preferences.double() / 2,
    )
    return scores


def boundary_suspect(preferences: Tensor) -> Predict:
    """Return a label-only suspect: the second class if its preference [N] and the gray together favor it."""

    def predict(x: Tensor) -> Tensor:
        number, gray = (x.flatten(1)[:, place].mul(255).round() for place in (0, 1))
        return torch.where(
            preferences[number.long()] + (gray - 128) / 16 > 0, SECOND[number.long()], FIRST[number.long()]
        )

    return predict


def _towards(x: Tensor, classes: Tensor) -> Tensor:
    number = x.flatten(1)[:, 0].mul(255).round().long()
    end = x.clone()
    end.flatten(1)[:, 1] += torch.where(classes == SECOND[number], 64, -64) / 255
    return end


PAIR_PATHS = BoundarySearch(_towards, _towards, _towards, lambda x: torch.zeros(len(x), K), (0.5, 1.0), 1000)
"""Paths to either class; each of eight grid points is half a unit of preference."""
