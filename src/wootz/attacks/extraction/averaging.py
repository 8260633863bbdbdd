"""Averaged thieves: several learn disjoint parts of the answers, and one network learns what they say together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.attacks.extraction.asking import answered
from wootz.attacks.extraction.learner import Learner, imitate
from wootz.attacks.extraction.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Average(Learner):
    """`thieves` who share the images, before the one who learns their mean; adaptive, ours."""

    thieves: int = 3

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.at_least(2, thieves=self.thieves)


def average(cfg: Average, victim: Ledger, context: AttackContext) -> nn.Module:
    """Ask about every image once, train the thieves, and distill their mean; true labels are not used."""
    pixels, images = context.data.pixels, context.data.images()
    answers = answered(victim, pixels, context)
    order = torch.randperm(len(pixels), generator=context.generator("parts"))
    mean = torch.zeros_like(answers)
    for number, rows in enumerate(order.tensor_split(cfg.thieves)):
        name = f"thief-{number}"
        thief = imitate(cfg, context.fresh(name), pixels[rows], answers[rows], context, name)
        mean += predict_logits(thief, images).softmax(1) / cfg.thieves
    return imitate(cfg, context.fresh("thief"), pixels, mean, context)
