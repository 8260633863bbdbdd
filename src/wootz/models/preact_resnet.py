"""PreActResNet-18 for 32x32 images (He et al., arXiv 1603.05027), the usual network of adversarial training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.models.layers import Normalize

_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)  # CIFAR-10's


@dataclass(frozen=True, slots=True, kw_only=True)
class PreActResNet18:
    """`width` channels in the first stage, doubled in each of the three others."""

    width: int = 64

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width)


class Block(nn.Module):
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
        """[N, before, H, W] -> [N, after, H / stride, W / stride]."""
        active = F.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active)))) + skip
        return out


def preact_resnet18(cfg: PreActResNet18, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the network for images of at least 16x16."""
    channels, height, width = shape
    checks.at_least(16, height=height, width=width)
    mean, std = (_MEAN, _STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    widths = [cfg.width, cfg.width, 2 * cfg.width, 4 * cfg.width, 8 * cfg.width]
    blocks = []
    for stage in range(4):
        before, after = widths[stage], widths[stage + 1]
        blocks += [Block(before, after, 1 if stage == 0 else 2), Block(after, after, 1)]
    return nn.Sequential(
        Normalize(mean, std),
        nn.Conv2d(channels, widths[0], 3, padding=1, bias=False),
        *blocks,
        nn.BatchNorm2d(widths[-1]),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(widths[-1], num_classes),
    )
