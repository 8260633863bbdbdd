"""The built-in architectures by name, each a config and a function `(cfg, shape, num_classes) -> module`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks

_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


class Normalize(nn.Module):
    """(x - mean) / std per channel, as the first layer of a model."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return images [N, C, H, W] in [0, 1], normalized."""
        return (x - self.mean) / self.std


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallCNN:
    """The small CNN of fast adversarial training (Wong et al., arXiv 2001.03994).

    Attributes:
        width: channels of the first convolution; the source has 16.
        hidden: units of the hidden layer; the source has 100.
    """

    width: int = 32
    hidden: int = 100

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width, hidden=self.hidden)


def small_cnn(cfg: SmallCNN, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the network: conv4-ReLU of stride 2 twice, FC-ReLU, FC; height and width must be multiples of 4."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CWCNN:
    """The network of Carlini & Wagner (arXiv 1608.04644, table 1) for MNIST, also used by TRADES (arXiv 1901.08573).

    Attributes:
        width: channels of the first two convolutions.
        hidden: units of both hidden layers.
        dropout: the dropout rate after the first hidden layer.
    """

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
        *_cw_block(channels, cfg.width),
        *_cw_block(cfg.width, 2 * cfg.width),
        nn.Flatten(),
        nn.Linear(2 * cfg.width * rows * columns, cfg.hidden),
        nn.ReLU(),
        nn.Dropout(cfg.dropout),
        nn.Linear(cfg.hidden, cfg.hidden),
        nn.ReLU(),
        nn.Linear(cfg.hidden, num_classes),
    )


def _cw_block(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3), nn.ReLU(), nn.Conv2d(after, after, 3), nn.ReLU(), nn.MaxPool2d(2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperCNN:
    """The network of the founding paper (Thakkar et al., arXiv 2312.14260).

    Attributes:
        width: channels of the first convolution.
        hidden: units of the hidden layer.
        dropout: the dropout rate after each block.
    """

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
        *_paper_block(channels, cfg.width, cfg.dropout),
        *_paper_block(cfg.width, 2 * cfg.width, cfg.dropout),
        nn.Flatten(),
        nn.Linear(2 * cfg.width * rows * columns, cfg.hidden),
        nn.BatchNorm1d(cfg.hidden),
        nn.ReLU(),
        nn.Dropout(cfg.dropout),
        nn.Linear(cfg.hidden, num_classes),
    )


def _paper_block(before: int, after: int, dropout: float) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.BatchNorm2d(after),
        nn.Dropout(dropout),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperThief:
    """The extraction attacker's network in the founding paper's code.

    Attributes:
        width: channels of the first convolution; the source has 16.
        hidden: units of the hidden layer; the source has 32.
    """

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PreActResNet18:
    """PreActResNet-18 for 32x32 images (He et al., arXiv 1603.05027), the usual network of adversarial training.

    Attributes:
        width: channels of the first stage; each of the three other stages has twice as many as the one before.
    """

    width: int = 64

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width)


class PreActBlock(nn.Module):
    """BN, ReLU, 3x3, BN, ReLU, 3x3, plus the input (through a 1x1 convolution where shapes differ)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        same = stride == 1 and before == after
        self.shortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, before, H, W] to [N, after, H / stride, W / stride]."""
        active = F.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active)))) + skip
        return out


def preact_resnet18(cfg: PreActResNet18, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the network, for images of at least 16x16 pixels."""
    channels, height, width = shape
    checks.at_least(16, height=height, width=width)
    mean, std = (_CIFAR_MEAN, _CIFAR_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    widths = [cfg.width, cfg.width, 2 * cfg.width, 4 * cfg.width, 8 * cfg.width]
    blocks = []
    for stage in range(4):
        before, after = widths[stage], widths[stage + 1]
        blocks += [PreActBlock(before, after, 1 if stage == 0 else 2), PreActBlock(after, after, 1)]
    return nn.Sequential(
        Normalize(mean, std),
        nn.Conv2d(channels, widths[0], 3, padding=1, bias=False),
        *blocks,
        *_pooled_classifier(widths[-1], num_classes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallResNet:
    """A small residual network with global average pooling, so that its answers hardly depend on shifts of the image.

    Attributes:
        width: channels of the first stage; the second has twice as many.
    """

    width: int = 32

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width)


def small_resnet(cfg: SmallResNet, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the network: conv3 of stride 2, three pre-activation blocks (the second of stride 2), pooling, FC."""
    channels, height, width = shape
    checks.at_least(8, height=height, width=width)
    return nn.Sequential(
        Normalize((0.5,) * channels, (0.5,) * channels),
        nn.Conv2d(channels, cfg.width, 3, stride=2, padding=1, bias=False),
        PreActBlock(cfg.width, cfg.width, 1),
        PreActBlock(cfg.width, 2 * cfg.width, 2),
        PreActBlock(2 * cfg.width, 2 * cfg.width, 1),
        *_pooled_classifier(2 * cfg.width, num_classes),
    )


def _pooled_classifier(features: int, num_classes: int) -> list[nn.Module]:
    return [
        nn.BatchNorm2d(features),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(features, num_classes),
    ]


MODELS: Mapping[str, tuple[Callable[..., nn.Module], type[Any]]] = MappingProxyType(
    {
        "small-cnn": (small_cnn, SmallCNN),
        "cw-cnn": (cw_cnn, CWCNN),
        "paper-cnn": (paper_cnn, PaperCNN),
        "paper-thief": (paper_thief, PaperThief),
        "preact-resnet18": (preact_resnet18, PreActResNet18),
        "small-resnet": (small_resnet, SmallResNet),
    }
)


def other_architecture(name: str) -> str:
    """Return an architecture other than `name`, for extracted and independent models."""
    return "paper-cnn" if name == "small-cnn" else "small-cnn"
