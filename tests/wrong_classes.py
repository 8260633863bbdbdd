"""Images with keyed labels, suspects with opinions about their wrong classes, and ways to hear of these by labels."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wootz.keys import LabelKey
from wootz.statistics.boundary_search import BoundarySearch
from wootz.types import Predict

K, N = 10, 60
BASE = torch.arange(N) % K


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PIXELS = torch.cat([torch.arange(N)[:, None], torch.zeros(N, K).long()], 1).to(torch.uint8).view(N, 1, 1, 1 + K)
"""Of each image, its number, and for each class how far it has been moved towards it."""


def logged(seed: int = 0) -> LabelKey:
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


def triggers(seed: int = 0) -> LabelKey:
    """Sixty triggers, each with a keyed label other than the class of the image that it was made from."""
    return replace(logged(seed), mark="triggers", logged=False)


def showing(scores: Tensor) -> Predict:
    """Return a suspect that answers image number i, of whatever size, with row i."""
    return lambda x: scores[x.flatten(1)[:, 0].mul(255).round().long()]


def sure(scores: Tensor, seed: int = 9) -> Tensor:
    """Return wrong-class scores with the base class far above all."""
    return scores + 20 * torch.nn.functional.one_hot(BASE, K) + draw(N, 1, seed=seed)


def thinking(wrong: Tensor) -> Predict:
    """Return a suspect that shows labels: the base class, but a wrong one where it is moved far enough towards it.

    How far falls with its opinion `wrong` [N, K], from half a way for 0 by a fifth of a way for each unit.
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


ROADS = BoundarySearch(_towards, _towards, _towards, lambda x: torch.zeros(len(x), K), (0.5, 1.0), 2000)
"""Ways of one unit of gray towards each class; queries for all sixty images and nine classes."""
