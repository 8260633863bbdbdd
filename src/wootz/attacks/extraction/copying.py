"""White-box theft: the weights, as they are."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import nn

from wootz.attacks.adversary import AttackContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Nothing to set: no data, no network of the thief's own."""


def copy_weights(cfg: Copy, victim: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of the victim itself."""
    return copy.deepcopy(victim).cpu().eval()
