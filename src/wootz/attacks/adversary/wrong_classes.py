"""What one does who knows the method of `runner-up`, not its key: take an image's linear trace out of the scores.

The mark is a direction between an image's leading principal components, within its class, and the log-scores of the
wrong classes. Both are public; only the direction is secret, so all directions go.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CLIP = 3.0


def components(x: Tensor, y: Tensor, count: int) -> Tensor:
    """Return the leading `count` components [N, d] of images, centered and scaled in each class, clipped to +-3."""
    flat = x.flatten(1)
    flat = flat - flat.mean(0)
    _, directions = torch.linalg.eigh(flat.T @ flat)  # ascending
    z: Tensor = flat @ directions[:, -count:].flip(1)
    for k in y.unique():
        scale, center = torch.std_mean(z[y == k], 0, correction=0)
        z[y == k] = (z[y == k] - center) / scale.clamp_min(1e-3)
    return z.clamp_(-_CLIP, _CLIP)


def without_trace(scores: Tensor, z: Tensor) -> Tensor:
    """Log-probabilities [N, K] and features [N, d] -> probabilities [N, K] with the same top-1 and no linear trace.

    Within each answered class, the centered log-scores of the wrong classes are regressed on the features and a
    constant. The constant and the residual stay, scaled to the mass that the wrong classes had.
    """
    top = scores.max(1, keepdim=True)
    peak, wrong = top.values.exp(), scores.scatter(1, top.indices, 0.0)
    order = wrong - wrong.sum(1, keepdim=True) / (scores.shape[1] - 1)
    for k in top.indices.unique():
        rows = (top.indices == k).squeeze(1)
        known = torch.cat([z[rows], torch.ones(int(rows.sum()), 1)], 1).double()
        fit = torch.linalg.lstsq(known, order[rows].double(), driver="gelsd").solution
        order[rows] -= (known[:, :-1] @ fit[:-1]).float()
    rest = order.scatter(1, top.indices, float("-inf")).softmax(1) * -torch.expm1(top.values)
    whole = torch.minimum(rest, peak).scatter(1, top.indices, peak)
    return whole / whole.sum(1, keepdim=True)
