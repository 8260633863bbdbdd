"""The small CNN of fast adversarial training (Wong et al., arXiv 2001.03994): two 4x4 convolutions of stride 2."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wootz import checks


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallCNN:
    """Widths; the source's are 16 and 100."""

    width: int = 32
    hidden: int = 100

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width, hidden=self.hidden)


def small_cnn(cfg: SmallCNN, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the network for images of `shape`; height and width must be multiples of 4."""
    channels, height, width = shape
    checks.at_least(8, height=height, width=width)
    return nn.Sequential(
        nn.Conv2d(channels, cfg.width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(cfg.width, 2 * cfg.width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * cfg.width * (height // 4) * (width // 4), cfg.hidden),
        nn.ReLU(),
        nn.Linear(cfg.hidden, num_classes),
    )
