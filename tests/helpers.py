"""Plain things that tests of several rooms use."""

from __future__ import annotations

import torch
from torch import nn

from wootz.training import Execution

CPU = Execution(device="cpu", precision="32")


class Linear(nn.Module):
    """Two classes, one hyperplane: the worst case is known in closed form."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = (x * self.weight).flatten(1).sum(1)
        return torch.stack([-score, score], 1)
