"""Extraction by retraining (Tramer et al. 2016; Orekondy et al., arXiv 1812.02766): learn from the victim's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.adversary import Means, learn
from wootz.data import Share
from wootz.errors import BudgetError
from wootz.stealing.ledger import Ledger
from wootz.stealing.thief import Thief
from wootz.training import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrain(Thief):
    """How the thief learns.

    Attributes:
        labels: all that the victim shows (`soft`), its top-1 label (`hard`), or the top-1 score with all wrong
            classes made equal (`flat`, against marks in the order of the wrong classes).
        temperature: soft answers are taken to the power 1 / temperature and scaled to sum to one.
        loss: how the thief trains: `natural`, or adversarially (`pgd-at`, `n-fgsm`) at the customary budget.
        epochs: passes over the queried images.
        batch_size: images a step.
        lr: peak learning rate of AdamW.
    """

    labels: Literal["soft", "hard", "flat"] = "soft"
    temperature: float = 1.0
    loss: Literal["natural", "pgd-at", "n-fgsm"] = "natural"
    epochs: int = 15
    batch_size: int = 128
    lr: float = 2e-3

    def __post_init__(self) -> None:
        Thief.__post_init__(self)
        checks.at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        checks.positive(lr=self.lr, temperature=self.temperature)


def retrain(cfg: Retrain, victim: Ledger, means: Means) -> nn.Module:
    """Ask the victim about every image once, and train a fresh network on what it says; true labels are not used."""
    if cfg.labels != "hard" and victim.access == "label":
        raise BudgetError(f"labels = {cfg.labels!r}: needs scores, but the victim shows its label only; use hard")
    answers = taught(cfg, victim.distributions(means.data.images()))
    recipe = Recipe(loss=cfg.loss, eps=means.eps, epochs=cfg.epochs, batch_size=cfg.batch_size, lr=cfg.lr)
    share = Share(means.data.pixels, answers.argmax(1))
    return learn(recipe, means.fresh("thief"), share, means, "thief", targets=answers)


def taught(cfg: Retrain, answers: Tensor) -> Tensor:
    """Return what the thief makes of distributions [N, K] before learning them."""
    if cfg.labels == "hard":
        return F.one_hot(answers.argmax(1), answers.shape[1]).float()
    if cfg.labels == "flat":
        top, classes = answers.max(1, keepdim=True), answers.shape[1]
        even = ((1 - top.values) / (classes - 1)).expand_as(answers)
        return even.scatter(1, top.indices, top.values)
    warm = answers.clamp_min(1e-12) ** (1 / cfg.temperature)
    return warm / warm.sum(1, keepdim=True)
