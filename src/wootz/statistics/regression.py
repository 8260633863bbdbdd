"""Regressions that remove from a suspect's answers whatever can be predicted without the key."""

from __future__ import annotations

import torch
from torch import Tensor

CLASS_PENALTY = 4.0
"""The ridge penalty of a class bias (a class that a suspect favors on all images), in images."""
_PENALTY = 1e-9  # keeps collinear regressors solvable


def residuals(target: Tensor, regressors: Tensor, penalty: Tensor | None = None) -> Tensor:
    """Return the residuals float64 [..., n, d] or [n] of a ridge regression.

    Args:
        target: What a suspect answered, float64 [..., n, d] or [n].
        regressors: What is known of each row without the key, such as the answers of independent models and constants,
            float64 [..., n, m]. A test on the residuals is exact for any choice that does not depend on the key.
        penalty: The ridge penalty per regressor [m]; next to none by default.
    """
    m = regressors.shape[-1]
    penalty = torch.full((m,), _PENALTY, dtype=regressors.dtype) if penalty is None else penalty
    gram = regressors.mT @ regressors + penalty.diag()
    coefficients: Tensor = torch.linalg.solve(gram, regressors.mT @ target)
    return target - regressors @ coefficients


def class_score_residuals(scores: Tensor, regressors: Tensor, counted: Tensor) -> Tensor:
    """Return the residuals [n, K] of a regression of class scores on regressors and on a bias per class.

    Equal to `residuals` of all counted scores in one column, with one indicator column per class, of penalty
    `CLASS_PENALTY`, beside the regressors. The K indicator columns are eliminated by hand, so that time and memory grow
    with K and not with its square.

    Args:
        scores: The scores of a suspect, float64 [n, K].
        regressors: What is known of each score without the key, float64 [n, K, m].
        counted: The scores that count, bool [n, K]; the others are taken as 0.
    """
    scores, regressors = scores * counted, regressors * counted[..., None]
    weight = counted.sum(0) + CLASS_PENALTY
    class_sums, shared = scores.sum(0), regressors.sum(0)  # [K], [K, m]
    flat = regressors.flatten(0, 1)
    gram = flat.T @ flat + _PENALTY * torch.eye(flat.shape[1], dtype=flat.dtype)
    moments = flat.T @ scores.flatten() - shared.T @ (class_sums / weight)
    coefficients: Tensor = torch.linalg.solve(gram - shared.T @ (shared / weight[:, None]), moments)
    return scores - regressors @ coefficients - counted * ((class_sums - shared @ coefficients) / weight)


def ridge_coefficients(target: Tensor, features: Tensor, weights: Tensor, penalty: float) -> Tensor:
    """Return the coefficients [..., d] of a weighted ridge regression of target on features.

    If both are residuals of the same regressors, these are the coefficients of the features in a regression on features
    and regressors together (Frisch and Waugh 1933).

    Args:
        target: The target [..., n].
        features: The features [..., n, d].
        weights: The weight of each row [..., n].
        penalty: The ridge penalty: the coefficients are the posterior mean under independent normal priors.
    """
    gram = features.mT @ (weights[..., None] * features)
    gram = gram + penalty * torch.eye(features.shape[-1], dtype=features.dtype)
    coefficients: Tensor = torch.linalg.solve(gram, features.mT @ target[..., None])
    return coefficients[..., 0]
