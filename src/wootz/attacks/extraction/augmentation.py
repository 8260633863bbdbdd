"""More images out of few: small shifts, turns and noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def shaken(pixels: Tensor, *, shift: float, angle: float, noise: float, generator: torch.Generator) -> Tensor:
    """Return images uint8 [N, C, H, W], each shifted, turned and made noisy at random.

    Args:
        pixels: images uint8 [N, C, H, W].
        shift: farthest shift along each axis, in pixels; what comes in from outside repeats the border.
        angle: farthest turn, in degrees.
        noise: standard deviation of Gaussian noise, in pixels of [0, 1].
        generator: of all three.
    """
    count, _, height, width = pixels.shape
    turn = math.radians(angle) * _spread(count, generator)
    cos, sin = turn.cos(), turn.sin()
    right = 2 * shift / width * _spread(count, generator)
    down = 2 * shift / height * _spread(count, generator)
    rows = (torch.stack([cos, -sin * height / width, right], 1), torch.stack([sin * width / height, cos, down], 1))
    grid = F.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    x = F.grid_sample(pixels.float().div_(255), grid, padding_mode="border", align_corners=False)
    x = x + noise * torch.randn(x.shape, generator=generator)
    return x.clamp_(0, 1).mul_(255).round_().to(torch.uint8)


def _spread(count: int, generator: torch.Generator) -> Tensor:
    """Return uniform numbers [count] from -1 to 1."""
    return 2 * torch.rand(count, generator=generator) - 1
