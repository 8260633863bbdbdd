"""Extraction by retraining (Tramer et al. 2016; Orekondy et al., arXiv 1812.02766): learn from the victim's answers.

With images of another kind and scores this is Knockoff's random strategy; with labels alone it is CopycatCNN
(Correia-Silva et al., arXiv 1806.05476).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.extraction.asking import answered
from wootz.attacks.extraction.learner import Learner, imitate
from wootz.attacks.extraction.ledger import Ledger
from wootz.errors import BudgetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrain(Learner):
    """What the thief makes of the answers.

    Attributes:
        labels: all that the victim shows (`soft`), its top-1 label (`hard`), or the top-1 score with all wrong
            classes made equal (`flat`, against marks in the order of the wrong classes).
        temperature: soft answers are taken to the power 1 / temperature and scaled to sum to one.
    """

    labels: Literal["soft", "hard", "flat"] = "soft"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.positive(temperature=self.temperature)


def retrain(cfg: Retrain, victim: Ledger, context: AttackContext) -> nn.Module:
    """Ask the victim about every image once, and train a fresh network on what it says; true labels are not used."""
    if cfg.labels != "hard" and victim.access == "label":
        raise BudgetError(f"labels = {cfg.labels!r}: needs scores, but the victim shows its label only; use hard")
    answers = taught(cfg, answered(victim, context.data.pixels, context))
    return imitate(cfg, context.fresh("thief"), context.data.pixels, answers, context)


def taught(cfg: Retrain, answers: Tensor) -> Tensor:
    """Return what the thief makes of distributions [N, K] before learning them."""
    if cfg.labels == "hard":
        return F.one_hot(answers.argmax(1), answers.shape[1]).float()
    if cfg.labels == "flat":
        top, classes = answers.max(1, keepdim=True), answers.shape[1]
        even = ((1 - top.values) / (classes - 1)).expand_as(answers)
        return even.scatter(1, top.indices, top.values)
    return warmed(answers, cfg.temperature)


def warmed(answers: Tensor, temperature: float) -> Tensor:
    """Return distributions [N, K] to the power 1 / temperature, scaled to sum to one."""
    warm = answers.clamp_min(1e-12) ** (1 / temperature)
    return warm / warm.sum(1, keepdim=True)
