"""The filter `refuse`, its limit set on the attacker's own images: ours, adaptive, against triggers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext, AttackDataConfig
from wootz.attacks.removal.filtering import filtering
from wootz.models.filters.refuse import Distrust, Refuse
from wootz.modes import eval_mode

_BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusing(AttackDataConfig):
    """What is compared, and how often in vain.

    Attributes:
        scale: how small images become for the comparison, as a share of height and width.
        answer: to what is taken for a trigger, the `squeezed` image's or an `even` one.
        alarms: share of ordinary images that may be taken for triggers.
    """

    scale: float = 0.5
    answer: Literal["squeezed", "even"] = "squeezed"
    alarms: float = 0.05

    def __post_init__(self) -> None:
        AttackDataConfig.__post_init__(self)
        checks.inside(0, 1, scale=self.scale)
        checks.within(0, 1, alarms=self.alarms)


def refuse_oddities(cfg: Refusing, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` that does not believe in suspicious images; true labels are not used."""
    filtered = filtering(Refuse(scale=cfg.scale, answer=cfg.answer), model, context)
    detector = filtered.filter
    assert isinstance(detector, Distrust)
    with eval_mode(filtered), torch.no_grad():
        batches = context.data.images().split(_BATCH)
        distances = torch.cat([detector.both(filtered.inner, batch)[2] for batch in batches])
    detector.limit.copy_(distances.quantile(1 - cfg.alarms))
    return filtered
