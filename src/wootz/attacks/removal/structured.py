"""Structured pruning (Fang et al., arXiv 2301.12900; Li et al., arXiv 1608.08710): whole channels go, everywhere."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch_pruning as tp
from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.removal.channels import silence
from wootz.attacks.removal.finetune import last_layer
from wootz.attacks.removal.tuning import Tuning, tune


@dataclass(frozen=True, slots=True, kw_only=True)
class Structured(Tuning):
    """What goes, and how long the rest trains on.

    Attributes:
        ratio: share of the hidden channels that go.
        scope: rank channels within each group (`group`), or over the whole network (`global`).
        importance: of a channel, summed over its group: the 2-norm of its weights, or the 1-norm.
    """

    ratio: float = 0.3
    scope: Literal["group", "global"] = "group"
    importance: Literal["L1", "L2"] = "L2"
    epochs: int = 0

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)
        checks.within(0, 0.95, ratio=self.ratio)


def prune_channels(cfg: Structured, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` whose least important channels are zero, trained on if asked."""
    pruned = copy.deepcopy(model).eval()
    pruner = tp.pruner.BasePruner(
        pruned,
        context.data.subset(slice(1)).images(),
        importance=tp.importance.GroupMagnitudeImportance(p=int(cfg.importance[1])),
        global_pruning=cfg.scope == "global",
        pruning_ratio=cfg.ratio,
        ignored_layers=[pruned.get_submodule(last_layer(pruned))],
    )
    for group in pruner.step(interactive=True):
        silence(group)
    return tune(cfg, pruned, context)
