"""Weight shifting, then fine-tuning: the attack that Lukas et al. (arXiv 2108.04974) name; the form is ours.

All filters of a layer move by one common step, against their mean, and each by a little of its own. What was written
into exact values is gone at once; training on gets the task back, and has no reason to get anything else back.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.removal.tuning import Tuning, tune


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightShift(Tuning):
    """How far the weights move before training goes on.

    Attributes:
        shift: the common step, in mean filters of the layer; 1 takes the mean filter away.
        noise: each weight's own step, in standard deviations of the layer's weights.
    """

    shift: float = 1.0
    noise: float = 0.5
    epochs: int = 5

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)
        checks.not_negative(shift=self.shift, noise=self.noise)


def shift_weights(cfg: WeightShift, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` with its weights moved, trained on."""
    moved, generator = copy.deepcopy(model), context.generator("shift")
    with torch.no_grad():
        for weight in (p for p in moved.parameters() if p.dim() > 1):
            step = torch.randn(weight.shape, generator=generator) * weight.std()
            weight.sub_(cfg.shift * weight.mean(0)).add_(step, alpha=cfg.noise)
    return tune(cfg, moved, context)
