"""A small ResNet (He et al., arXiv 1512.03385) for images of 32 to 64 pixels, as anyone may have one.

`wootz mark examples/resnet.py:make --init weights.safetensors --data FOLDER --size 64 --out run` calls `make`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, before, H, W] to [N, after, H / stride, W / stride]."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Images [N, C, H, W] in [0, 1] -> logits [N, K]; four stages, global average pooling."""

    def __init__(self, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        widths = (width, width, 2 * width, 4 * width, 8 * width)
        self.stem = nn.Conv2d(in_channels, width, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.stages = nn.Sequential(
            *(Block(widths[stage], widths[stage + 1], 1 if stage == 0 else 2) for stage in range(4))
        )
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = F.relu(self.bn(self.stem((x - 0.5) / 0.5)))
        return self.head(self.stages(x).mean((2, 3)))


def make(num_classes: int, in_channels: int = 3, width: int = 32) -> nn.Module:
    """Return the network with random weights."""
    return ResNet(num_classes, in_channels, width)
