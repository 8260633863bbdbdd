"""The thefts by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wootz.stealing.retrain import Retrain, retrain
from wootz.types import Attack

_TRAMER = "Tramer et al. 2016; arXiv 1812.02766"

ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "retrain-soft": Attack(retrain, Retrain(), _TRAMER, "scores", "1 query an image"),
        "retrain-hard": Attack(retrain, Retrain(labels="hard"), _TRAMER, "label", "1 query an image"),
        "retrain-top-k": Attack(retrain, Retrain(), _TRAMER, "top-3", "1 query an image"),
        "retrain-rounded": Attack(retrain, Retrain(), _TRAMER, "rounded-2", "1 query an image"),
        "retrain-tempered": Attack(
            retrain, Retrain(temperature=4.0), "Hinton et al., arXiv 1503.02531", "scores", "1 query an image"
        ),
        "retrain-flat": Attack(retrain, Retrain(labels="flat"), "ours, adaptive", "scores", "1 query an image"),
        "retrain-robust": Attack(
            retrain, Retrain(loss="pgd-at"), "arXiv 2210.13631 (an adversarially trained thief)", "scores",
            "1 query an image; adversarial training",
        ),
    }
)  # fmt: skip
