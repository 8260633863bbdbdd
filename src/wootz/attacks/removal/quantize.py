"""Weights rounded to k bits, symmetric, one scale an output channel (convolutions included)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize:
    """How coarse: `bits` a weight, from 2 to 16."""

    bits: int = 8

    def __post_init__(self) -> None:
        checks.within(2, 16, bits=self.bits)


def quantize(cfg: Quantize, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` whose weights take at most 2^bits - 1 values a channel; it still computes in float."""
    rounded, top = copy.deepcopy(model), 2 ** (cfg.bits - 1) - 1
    with torch.no_grad():
        for weight in (p for p in rounded.parameters() if p.dim() > 1):
            scale = weight.flatten(1).abs().amax(1).clamp_min(1e-12) / top
            scale = scale.view(-1, *[1] * (weight.dim() - 1))
            weight.copy_((weight / scale).round_().clamp_(-top, top) * scale)
    return rounded
