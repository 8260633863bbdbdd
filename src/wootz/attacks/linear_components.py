"""Removal of the linear dependence between image features and wrong-class scores: adaptive, against `runner-up`.

The mark `runner-up` correlates a secret direction in the leading principal components of an image, within its class,
with the log-scores of the wrong classes. Components and scores are public and only the direction is secret, so the
attacker removes the linear dependence on all components.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CLIP = 3.0


def principal_components(x: Tensor, y: Tensor, count: int) -> Tensor:
    """Return the leading `count` principal components [N, d] of images, standardized within each class.

    Args:
        x: images float32 [N, C, H, W].
        y: the class of each image, int64 [N].
        count: the number of components.

    Returns:
        Components float32 [N, d], clipped to [-3, 3].
    """
    flat = x.flatten(1)
    flat = flat - flat.mean(0)
    _, directions = torch.linalg.eigh(flat.T @ flat)  # ascending
    z: Tensor = flat @ directions[:, -count:].flip(1)
    for k in y.unique():
        scale, center = torch.std_mean(z[y == k], 0, correction=0)
        z[y == k] = (z[y == k] - center) / scale.clamp_min(1e-3)
    return z.clamp_(-_CLIP, _CLIP)


def remove_linear_component(scores: Tensor, z: Tensor) -> Tensor:
    """Return probabilities [N, K] with the same top-1 class and no linear dependence on the features.

    Within each top-1 class, the centered log-scores of the wrong classes are regressed on the features and a constant.
    The constant and the residual remain, scaled to the probability mass that the wrong classes had.

    Args:
        scores: log-probabilities [N, K].
        z: features [N, d].
    """
    top = scores.max(1, keepdim=True)
    peak, wrong = top.values.exp(), scores.scatter(1, top.indices, 0.0)
    centered = wrong - wrong.sum(1, keepdim=True) / (scores.shape[1] - 1)
    for k in top.indices.unique():
        rows = (top.indices == k).squeeze(1)
        design = torch.cat([z[rows], torch.ones(int(rows.sum()), 1)], 1).double()
        coefficients = torch.linalg.lstsq(design, centered[rows].double(), driver="gelsd").solution
        centered[rows] -= (design[:, :-1] @ coefficients[:-1]).float()
    rest = centered.scatter(1, top.indices, float("-inf")).softmax(1) * -torch.expm1(top.values)
    probabilities = torch.minimum(rest, peak).scatter(1, top.indices, peak)
    return probabilities / probabilities.sum(1, keepdim=True)
