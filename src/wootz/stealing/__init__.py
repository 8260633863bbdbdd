"""Thieves: they see a victim through a query ledger and build a model of their own. They never see keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import nn

from wootz.stealing.ledger import Ledger, ask_all
from wootz.stealing.retrain import Retrain, retrain
from wootz.types import Access

__all__ = ["ATTACKS", "Ledger", "Retrain", "Theft", "ask_all", "retrain"]


class Theft(NamedTuple):
    """`steal(cfg, victim, queries, model, *, seed, execution)`, its config, source, access and cost."""

    steal: Callable[..., nn.Module]
    config: Any
    source: str
    access: Access
    cost: str


ATTACKS: Mapping[str, Theft] = MappingProxyType(
    {
        "retrain-soft": Theft(
            retrain,
            Retrain(labels="soft"),
            "Tramer et al. 2016; arXiv 1812.02766",
            "scores",
            "1 query an image",
        ),
        "retrain-hard": Theft(
            retrain,
            Retrain(labels="hard"),
            "Tramer et al. 2016; arXiv 1812.02766",
            "label",
            "1 query an image",
        ),
    }
)
