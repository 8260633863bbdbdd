"""What an image looks like from afar: its leading principal components, compared within its class."""

from __future__ import annotations

import torch
from torch import Tensor

CLIP = 3.0


def components(x: Tensor, y: Tensor, count: int) -> Tensor:
    """Return the leading `count` components [N, d] of images, centered and scaled in each class, clipped to +-3."""
    flat = x.flatten(1)
    flat = flat - flat.mean(0)
    _, directions = torch.linalg.eigh(flat.T @ flat)  # ascending
    z: Tensor = flat @ directions[:, -count:].flip(1)
    for k in y.unique():
        scale, center = torch.std_mean(z[y == k], 0, correction=0)
        z[y == k] = (z[y == k] - center) / scale.clamp_min(1e-3)
    return z.clamp_(-CLIP, CLIP)
