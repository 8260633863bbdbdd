"""Attempts to remove a mark: they hold the model and some data, and never see keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import nn

from wootz.removal.finetune import Finetune, finetune
from wootz.removal.prune import Prune, prune
from wootz.removal.quantize import Quantize, quantize

__all__ = ["ATTACKS", "Finetune", "Prune", "Quantize", "Removal", "finetune", "prune", "quantize"]


class Removal(NamedTuple):
    """`remove(cfg, model, data, *, seed, execution)` -> a changed copy; its config, source, access and cost."""

    remove: Callable[..., nn.Module]
    config: Any
    source: str
    access: str
    cost: str


ATTACKS: Mapping[str, Removal] = MappingProxyType(
    {
        "finetune": Removal(finetune, Finetune(), "arXiv 1802.04633 (FTAL)", "weights", "labeled data, 3 epochs"),
        "prune": Removal(prune, Prune(), "arXiv 1506.02626", "weights", "none"),
        "quantize": Removal(quantize, Quantize(), "k-bit weights, a scale a channel", "weights", "none"),
    }
)
