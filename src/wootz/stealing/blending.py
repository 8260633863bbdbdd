"""Blended answers: the victim's, averaged with those of a network of the thief's own, which carries no mark."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F

from wootz import checks
from wootz.adversary import Means
from wootz.evasion import predict_logits
from wootz.stealing.asking import answered
from wootz.stealing.learner import Learner, imitate
from wootz.stealing.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend(Learner):
    """`own` is the share of each target that comes from the thief's own teacher; adaptive, ours."""

    own: float = 0.5

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.within(0, 1, own=self.own)


def blend(cfg: Blend, victim: Ledger, means: Means) -> nn.Module:
    """Ask about every image once and learn the mean of victim and teacher, who learned the true labels."""
    share = means.data
    answers = answered(victim, share.pixels, means)
    truth = F.one_hot(share.labels, victim.num_classes).float()
    teacher = imitate(cfg, means.fresh("teacher"), share.pixels, truth, means, "teacher")
    known = predict_logits(teacher, share.images()).softmax(1)
    return imitate(cfg, means.fresh("thief"), share.pixels, (1 - cfg.own) * answers + cfg.own * known, means)
