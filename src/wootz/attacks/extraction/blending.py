"""Blended answers: the victim's, averaged with those of a network of the thief's own, which carries no mark."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.attacks.extraction.asking import answered
from wootz.attacks.extraction.learner import Learner, imitate
from wootz.attacks.extraction.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend(Learner):
    """`own` is the share of each target that comes from the thief's own teacher; adaptive, ours."""

    own: float = 0.5

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.within(0, 1, own=self.own)


def blend(cfg: Blend, victim: Ledger, context: AttackContext) -> nn.Module:
    """Ask about every image once and learn the mean of victim and teacher, who learned the true labels."""
    share = context.data
    answers = answered(victim, share.pixels, context)
    truth = F.one_hot(share.labels, victim.num_classes).float()
    teacher = imitate(cfg, context.fresh("teacher"), share.pixels, truth, context, "teacher")
    known = predict_logits(teacher, share.images()).softmax(1)
    return imitate(cfg, context.fresh("thief"), share.pixels, (1 - cfg.own) * answers + cfg.own * known, context)
