"""Unstructured magnitude pruning (Han et al., arXiv 1506.02626): the smallest weights become zero."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """What goes.

    Attributes:
        sparsity: share of the weights set to zero (biases and norms stay).
        scope: rank weights over the whole network (`global`) or within each layer (`layer`).
    """

    sparsity: float = 0.5
    scope: Literal["global", "layer"] = "global"

    def __post_init__(self) -> None:
        checks.within(0, 0.999, sparsity=self.sparsity)


def prune(cfg: Prune, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a pruned copy of `model`; neither data nor randomness are used."""
    pruned = copy.deepcopy(model)
    weights = [p for p in pruned.parameters() if p.dim() > 1]
    groups = [weights] if cfg.scope == "global" else [[weight] for weight in weights]
    with torch.no_grad():
        for group in groups:
            sizes = torch.cat([weight.abs().flatten() for weight in group])
            count = round(cfg.sparsity * len(sizes))
            threshold = sizes.kthvalue(count).values if count else -torch.ones(())
            for weight in group:
                weight.mul_(weight.abs() > threshold)
    return pruned
