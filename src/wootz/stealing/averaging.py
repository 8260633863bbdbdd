"""Averaged thieves: several learn disjoint parts of the answers, and one network learns what they say together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from wootz import checks
from wootz.adversary import Means
from wootz.evasion import predict_logits
from wootz.stealing.asking import answered
from wootz.stealing.learner import Learner, imitate
from wootz.stealing.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Average(Learner):
    """`thieves` who share the images, before the one who learns their mean; adaptive, ours."""

    thieves: int = 3

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.at_least(2, thieves=self.thieves)


def average(cfg: Average, victim: Ledger, means: Means) -> nn.Module:
    """Ask about every image once, train the thieves, and distill their mean; true labels are not used."""
    pixels, images = means.data.pixels, means.data.images()
    answers = answered(victim, pixels, means)
    order = torch.randperm(len(pixels), generator=means.generator("parts"))
    mean = torch.zeros_like(answers)
    for number, rows in enumerate(order.tensor_split(cfg.thieves)):
        name = f"thief-{number}"
        thief = imitate(cfg, means.fresh(name), pixels[rows], answers[rows], means, name)
        mean += predict_logits(thief, images).softmax(1) / cfg.thieves
    return imitate(cfg, means.fresh("thief"), pixels, mean, means)
