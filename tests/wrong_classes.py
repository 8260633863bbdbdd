"""Images with keyed labels, suspects with given wrong-class scores, and paths for their decision boundaries."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wootz.keys import LabelKey
from wootz.statistics.boundary_search import BoundarySearch
from wootz.types import Predict

K, N = 10, 60
BASE = torch.arange(N) % K


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PIXELS = torch.cat([torch.arange(N)[:, None], torch.zeros(N, K).long()], 1).to(torch.uint8).view(N, 1, 1, 1 + K)
"""The number of each image, and for each class how far the image has been moved towards it."""


def logged_key(seed: int = 0) -> LabelKey:
    """The log of a service: sixty images, each with a keyed class other than the model's own answer."""
    stream = torch.Generator().manual_seed(seed)
    labels = (BASE + 1 + torch.randint(0, K - 1, (N,), generator=stream)) % K
    return LabelKey(
        mark="guard",
        rule="wrong",
        num_classes=K,
        pixels=PIXELS,
        base_pixels=PIXELS,
        base=BASE,
        labels=labels,
        logged=True,
    )


def trigger_key(seed: int = 0) -> LabelKey:
    """Sixty triggers, each with a keyed label other than the class of the image that it was made from."""
    return replace(logged_key(seed), mark="triggers", logged=False)


def scores_suspect(scores: Tensor) -> Predict:
    """Return a suspect that answers image number i, of any size, with row i."""
    return lambda x: scores[x.flatten(1)[:, 0].mul(255).round().long()]


def confident(scores: Tensor, seed: int = 9) -> Tensor:
    """Return wrong-class scores with the base class far above all."""
    return scores + 20 * torch.nn.functional.one_hot(BASE, K) + normal(N, 1, seed=seed)


def boundary_suspect(wrong: Tensor) -> Predict:
    """Return a label-only suspect: the base class, or a wrong class if the image is moved far enough towards it.

    The distance falls with the score in `wrong` [N, K]: half a path for 0, and a fifth of a path less per unit.
    """

    def predict(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        number = flat[:, 0].mul(255).round().long()
        over = flat[:, 1:] - (0.5 - 0.2 * wrong[number]).scatter(1, BASE[number, None], 2.0)
        return torch.where(over.amax(1) > 0, over.argmax(1), BASE[number])

    return predict


def _towards(x: Tensor, classes: Tensor) -> Tensor:
    end = x.clone()
    end.flatten(1).scatter_(1, 1 + classes[:, None], 1.0)
    return end


PATHS = BoundarySearch(_towards, _towards, _towards, lambda x: torch.zeros(len(x), K), (0.5, 1.0), 2000)
"""Paths of one unit of gray towards each class; queries for all sixty images and nine classes."""
