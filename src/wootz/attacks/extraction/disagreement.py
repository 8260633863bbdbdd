"""How far a clone is from its victim, image by image, and in which direction a victim's images make that grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Disagreement: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def logit_distance(answers: Tensor, logits: Tensor) -> Tensor:
    """Return the mean absolute difference [N] of centered logits (DFME, Truong et al., arXiv 2011.14779).

    The victim's are recovered from its probabilities [N, K]: log-probabilities are logits up to a constant.
    """
    recovered = answers.clamp_min(1e-10).log()
    difference = recovered - recovered.mean(1, keepdim=True) - (logits - logits.mean(1, keepdim=True))
    return difference.abs().mean(1)


def divergence(answers: Tensor, logits: Tensor) -> Tensor:
    """Return KL(victim || clone) [N], in nats (MAZE, Kariyappa et al., arXiv 2005.03161)."""
    return F.kl_div(logits.log_softmax(1), answers, reduction="none").sum(1)


DISAGREEMENTS: Mapping[str, Disagreement] = MappingProxyType({"l1": logit_distance, "kl": divergence})


def slope(value: Callable[[Tensor], Tensor], raw: Tensor, directions: int, step: float, u: torch.Generator) -> Tensor:
    """Return an estimate of the gradient of `value` [N] with respect to `raw` [N, ...], by forward differences.

    Each input goes a `step` along each of its own random unit vectors; the mean slope along them, times the number of
    dimensions, has the gradient as its expectation. `value` is asked once, about all (directions + 1) * N points.
    """
    unit = torch.randn((directions, *raw.shape), generator=u)
    unit /= unit.flatten(2).norm(dim=2).view(directions, -1, *[1] * (raw.dim() - 1))
    points = torch.cat([raw[None], raw + step * unit])
    heights = value(points.flatten(0, 1)).view(directions + 1, -1)
    rise = (heights[1:] - heights[0]) / step
    return torch.einsum("dn,dn...->n...", rise, unit) * (raw[0].numel() / directions)
