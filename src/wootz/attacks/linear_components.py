"""Removal of the linear dependence between image features and wrong-class scores: adaptive, against `runner-up`.

The mark `runner-up` correlates a secret direction in public features of an image, within its class, with the log-scores
of the wrong classes. Features and scores are public and only the direction is secret, so the attacker removes the
linear dependence on all features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wootz.image_features import class_statistics, fit_projection, project, standardize


def public_features(x: Tensor, y: Tensor, features: int, amplitudes: int) -> Tensor:
    """Return the features [N, d] that `runner-up` weighs, fitted to the attacker's images.

    Args:
        x: images float32 [N, C, H, W].
        y: the class of each image, int64 [N].
        features: the number of principal components of the pixels.
        amplitudes: the number of principal components of the amplitudes.
    """
    z = project(x, fit_projection(x, features, amplitudes))
    return standardize(z, y, *class_statistics(z, y, 1 + int(y.max())))


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
