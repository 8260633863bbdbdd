"""The thief's network in the founding paper's code: two wide convolutions, tanh, a 32 wide head."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wootz import checks
from wootz.models.layers import Normalize


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperThief:
    """Widths; the source's are 16 and 32."""

    width: int = 16
    hidden: int = 32

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width, hidden=self.hidden)


def paper_thief(cfg: PaperThief, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the network: (conv of stride 2, max-pool, tanh) twice, FC-tanh, FC.

    The first convolution pads by 3 and the pools move by one pixel, so that 28x28 images leave 4x4 features.
    """
    channels, height, width = shape
    checks.at_least(16, height=height, width=width)
    rows, columns = (((size - 2) // 2 - 4) // 2 for size in (height, width))
    return nn.Sequential(
        Normalize((0.5,) * channels, (0.5,) * channels),
        nn.Conv2d(channels, cfg.width, 8, stride=2, padding=3),
        nn.MaxPool2d(2, stride=1),
        nn.Tanh(),
        nn.Conv2d(cfg.width, 2 * cfg.width, 4, stride=2),
        nn.MaxPool2d(2, stride=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(2 * cfg.width * rows * columns, cfg.hidden),
        nn.Tanh(),
        nn.Linear(cfg.hidden, num_classes),
    )
