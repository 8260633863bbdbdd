"""Gaussian noise on the weights, measured by each tensor's own spread."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightNoise:
    """How much: `noise` times the standard deviation of each weight tensor (biases and norms stay)."""

    noise: float = 0.2

    def __post_init__(self) -> None:
        checks.not_negative(noise=self.noise)


def add_noise(cfg: WeightNoise, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a noisy copy of `model`."""
    noisy, generator = copy.deepcopy(model).eval(), context.generator("noise")
    with torch.no_grad():
        for weight in (p for p in noisy.parameters() if p.dim() > 1):
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=cfg.noise * float(weight.std()))
    return noisy
