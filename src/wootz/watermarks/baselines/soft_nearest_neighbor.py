"""Soft nearest neighbor loss (Frosst, Papernot, Hinton, arXiv 1902.01889): how far groups stand apart."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_nearest_neighbor(features: Tensor, groups: Tensor, temperature: float | Tensor) -> Tensor:
    """Features [N, d] and groups [N] -> scalar; large where a point's near neighbors are of another group.

    The mean over points i of `-log(sum_{j != i, same group} exp(-d_ij / T) / sum_{j != i} exp(-d_ij / T))` with squared
    Euclidean distances d (their eq. 1). Points that are alone in their group do not count.
    """
    closeness = -squared_distances(features) / temperature
    others = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    same = (groups[:, None] == groups[None, :]) & others
    counted = same.any(1)
    nothing = float("-inf")
    own = closeness.masked_fill(~same, nothing)[counted].logsumexp(1)
    return (closeness.masked_fill(~others, nothing)[counted].logsumexp(1) - own).mean()


def scale_free(features: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """The same at a temperature of so many mean squared distances, about log 2 where two equal groups are one.

    The mean has a gradient, so the loss does not change with the features' scale: raising it can not shrink them to
    nothing. A temperature far below the mean would leave groups that stand well apart without any slope.
    """
    mean = squared_distances(features).mean().clamp_min(1e-12)
    return soft_nearest_neighbor(features, groups, temperature * mean)


def squared_distances(features: Tensor) -> Tensor:
    """Features [N, d] -> [N, N]; with a gradient at zero, too."""
    return (features[:, None] - features[None, :]).square().sum(2)
