"""The removal attacks by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wootz.removal.finetune import Finetune, finetune
from wootz.removal.prune import Prune, prune
from wootz.removal.quantize import Quantize, quantize
from wootz.types import Attack

ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "finetune": Attack(finetune, Finetune(), "arXiv 1802.04633 (FTAL)", "weights", "labeled data, 3 epochs"),
        "prune": Attack(prune, Prune(), "arXiv 1506.02626", "weights", "none"),
        "quantize": Attack(quantize, Quantize(), "k-bit weights, a scale a channel", "weights", "none"),
    }
)
