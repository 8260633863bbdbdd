"""More images out of those at hand: each is shifted, and mirrored, anew every time that it is met."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from wootz.errors import ConfigError
from wootz.training.recipe import Recipe


def check_shift(cfg: Recipe, shape: tuple[int, ...]) -> None:
    """Raise ConfigError where images of `shape` [C, H, W] can be shifted out of sight."""
    height, width = shape[1:]
    if cfg.shift >= min(height, width):
        raise ConfigError(f"shift = {cfg.shift}: must be less than the side of the images, which are {height}x{width}")


def augmented(cfg: Recipe, x: Tensor, generator: torch.Generator) -> Tensor:
    """Return images [N, C, H, W] of the same type and device, each moved as `cfg.shift` and `cfg.mirror` allow.

    What comes in from outside is zero. Nothing is drawn where the recipe asks for neither.

    Args:
        cfg: the recipe.
        x: images [N, C, H, W].
        generator: on the CPU.
    """
    if not cfg.shift and not cfg.mirror:
        return x
    count, channels, height, width = x.shape
    down, right = torch.randint(0, 2 * cfg.shift + 1, (2, count, 1), generator=generator)
    turned = (torch.rand(count, 1, generator=generator) < 0.5) & cfg.mirror
    across = torch.arange(width).expand(count, -1)
    rows = (torch.arange(height) + down).to(x.device)
    columns = (torch.where(turned, across.flip(1), across) + right).to(x.device)
    image = torch.arange(count, device=x.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=x.device).view(1, -1, 1, 1)
    return F.pad(x, [cfg.shift] * 4)[image, channel, rows.view(count, 1, -1, 1), columns.view(count, 1, 1, -1)]
