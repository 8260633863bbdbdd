from __future__ import annotations

import pytest
import torch
from torch import nn

from wootz.training.execution import memory_format

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 1, stride=2),
        nn.Conv2d(8, 8, 1, stride=(1, 2)),
        nn.Conv2d(64, 64, 1, stride=2, groups=64),
    ],
)
def test_strided_pointwise_convolutions_of_few_channels_train_in_the_contiguous_format(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(layer))
    assert memory_format(model, CPU) == torch.contiguous_format
    assert memory_format(model, torch.device("cuda")) == torch.channels_last


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, stride=2), nn.Conv2d(16, 32, 1, stride=2), nn.Linear(4, 2)]
)
def test_other_networks_train_in_channels_last(layer: nn.Module) -> None:
    assert memory_format(nn.Sequential(layer), CPU) == torch.channels_last
