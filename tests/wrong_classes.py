"""A guard's log, and suspects with opinions about the wrong classes of its images."""

from __future__ import annotations

import torch
from torch import Tensor

from wootz.ownership import LabelKey
from wootz.types import Predict

K, N = 10, 60
BASE = torch.arange(N) % K


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logged(seed: int = 0) -> LabelKey:
    """The log of a service: sixty images, each with a keyed class other than the model's own answer."""
    stream = torch.Generator().manual_seed(seed)
    pixels = torch.arange(N).to(torch.uint8).view(N, 1, 1, 1)
    labels = (BASE + 1 + torch.randint(0, K - 1, (N,), generator=stream)) % K
    return LabelKey(
        mark="guard", rule="wrong", num_classes=K, pixels=pixels, base_pixels=pixels, base=BASE, labels=labels,
        logged=True,
    )  # fmt: skip


def showing(scores: Tensor) -> Predict:
    """Return a suspect that answers image number i, of whatever size, with row i."""
    return lambda x: scores[x.flatten(1)[:, 0].mul(255).round().long()]


def sure(scores: Tensor, seed: int = 9) -> Tensor:
    """Return wrong-class scores with the base class far above all."""
    return scores + 20 * torch.nn.functional.one_hot(BASE, K) + draw(N, 1, seed=seed)
