"""The network of the founding paper (Thakkar et al., arXiv 2312.14260): two 5x5 convolutions, a 512 wide head."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wootz import checks
from wootz.models.layers import Normalize


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperCNN:
    """The paper's sizes; `dropout` is the share dropped after each block."""

    width: int = 32
    hidden: int = 512
    dropout: float = 0.5

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width, hidden=self.hidden)
        checks.within(0, 0.95, dropout=self.dropout)


def paper_cnn(cfg: PaperCNN, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the network: (conv5, max-pool, ReLU, BN, dropout) twice, FC-BN-ReLU-dropout, FC; no padding."""
    channels, height, width = shape
    checks.at_least(16, height=height, width=width)
    rows, columns = (((size - 4) // 2 - 4) // 2 for size in (height, width))
    return nn.Sequential(
        Normalize((0.5,) * channels, (0.5,) * channels),
        *_block(channels, cfg.width, cfg.dropout),
        *_block(cfg.width, 2 * cfg.width, cfg.dropout),
        nn.Flatten(),
        nn.Linear(2 * cfg.width * rows * columns, cfg.hidden),
        nn.BatchNorm1d(cfg.hidden),
        nn.ReLU(),
        nn.Dropout(cfg.dropout),
        nn.Linear(cfg.hidden, num_classes),
    )


def _block(before: int, after: int, dropout: float) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.BatchNorm2d(after),
        nn.Dropout(dropout),
    ]
