"""Distillation (Hinton et al., arXiv 1503.02531) from answers: softened scores, mixed with the true labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.extraction.asking import answered
from wootz.attacks.extraction.learner import Learner, imitate
from wootz.attacks.extraction.ledger import Ledger
from wootz.attacks.extraction.retrain import warmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill(Learner):
    """What the student learns.

    Attributes:
        temperature: the victim's answers are taken to the power 1 / temperature. The source warms the student in
            training as well; ours stays at 1, so it really answers as softly as it was taught.
        alpha: share of each target that goes to the true label instead.
    """

    temperature: float = 4.0
    alpha: float = 0.1

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.positive(temperature=self.temperature)
        checks.within(0, 1, alpha=self.alpha)


def distill(cfg: Distill, victim: Ledger, context: AttackContext) -> nn.Module:
    """Ask about every image once and learn the softened answers together with the true labels, as the source does."""
    soft = warmed(answered(victim, context.data.pixels, context), cfg.temperature)
    truth = F.one_hot(context.data.labels, victim.num_classes).float()
    targets = (1 - cfg.alpha) * soft + cfg.alpha * truth
    return imitate(cfg, context.fresh("thief"), context.data.pixels, targets, context)
