"""A stolen model stays as the victim said: thefts that do not say otherwise never look at true labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from helpers import context
from wootz.attacks.extraction import ATTACKS, BudgetedOracle
from wootz.data import Dataset, Split
from wootz.models import ModelSpec
from wootz.suspects.files import predictor

BRIEF: dict[str, dict[str, Any]] = {
    "retrain-soft": {"epochs": 1},
    "retrain-hard": {"epochs": 1},
    "retrain-few": {"epochs": 1, "copies": 1},
    "jbda": {"epochs": 1, "doublings": 1},
    "activethief": {"epochs": 1, "queries": 400, "rounds": 1},
    "best": {"epochs": 1, "final_epochs": 1, "rounds": 1, "steps": 1},
    "transfer": {"epochs": 1, "pretraining": 1, "queries": 100},
    "average": {"epochs": 1},
    "stable": {"epochs": 1},
    "regress": {"epochs": 1},
    "dfme": {"queries": 1000, "batch_size": 64},
}


@pytest.mark.parametrize("name", BRIEF)
def test_other_labels_give_the_same_thief(name: str, plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    row, share = ATTACKS[name], digits.thief.subset(slice(500))
    cfg = replace(row.config, **BRIEF[name])
    one, two = (
        row.run(cfg, BudgetedOracle(predictor(plain), access=row.access, num_classes=10), context(held, small_spec))
        for held in (share, Split(share.pixels, (share.labels + 3) % 10))
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
