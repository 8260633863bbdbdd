"""The network that invents images for thefts without data."""

from __future__ import annotations

from torch import nn

_WIDTH = 16


def inventor(noise: int, shape: tuple[int, int, int]) -> nn.Module:
    """Return a network: noise [N, `noise`] -> images before their sigmoid, [N, C, H, W].

    As in the papers, a linear layer and two doublings with 3x3 convolutions, but an eighth as wide, for the CPU.
    The last norm, without a scale of its own, keeps the values where the sigmoid has slope.
    """
    channels, height, width = shape
    rows, columns = height // 4, width // 4
    return nn.Sequential(
        nn.Linear(noise, _WIDTH * rows * columns),
        nn.Unflatten(1, (_WIDTH, rows, columns)),
        nn.BatchNorm2d(_WIDTH),
        nn.Upsample(size=(height // 2, width // 2)),
        nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
        nn.BatchNorm2d(_WIDTH),
        nn.LeakyReLU(0.2),
        nn.Upsample(size=(height, width)),
        nn.Conv2d(_WIDTH, _WIDTH // 2, 3, padding=1),
        nn.BatchNorm2d(_WIDTH // 2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(_WIDTH // 2, channels, 3, padding=1),
        nn.BatchNorm2d(channels, affine=False),
    )
