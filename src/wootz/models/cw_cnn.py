"""The network of Carlini & Wagner (arXiv 1608.04644, table 1): four 3x3 convolutions, two hidden layers.

TRADES (arXiv 1901.08573) is published on it, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wootz import checks


@dataclass(frozen=True, slots=True, kw_only=True)
class CWCNN:
    """The source's sizes for MNIST; `dropout` is the share dropped after the first hidden layer."""

    width: int = 32
    hidden: int = 200
    dropout: float = 0.5

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width, hidden=self.hidden)
        checks.within(0, 0.95, dropout=self.dropout)


def cw_cnn(cfg: CWCNN, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the network: (conv3-ReLU, conv3-ReLU, max-pool) twice, FC-ReLU-dropout, FC-ReLU, FC; no padding."""
    channels, height, width = shape
    checks.at_least(16, height=height, width=width)
    rows, columns = (((size - 4) // 2 - 4) // 2 for size in (height, width))
    return nn.Sequential(
        *_block(channels, cfg.width),
        *_block(cfg.width, 2 * cfg.width),
        nn.Flatten(),
        nn.Linear(2 * cfg.width * rows * columns, cfg.hidden),
        nn.ReLU(),
        nn.Dropout(cfg.dropout),
        nn.Linear(cfg.hidden, cfg.hidden),
        nn.ReLU(),
        nn.Linear(cfg.hidden, num_classes),
    )


def _block(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3), nn.ReLU(), nn.Conv2d(after, after, 3), nn.ReLU(), nn.MaxPool2d(2)]
