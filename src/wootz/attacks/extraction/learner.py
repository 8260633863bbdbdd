"""How thieves learn: a network is trained on images and what the victim said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from wootz import checks
from wootz.attacks.adversary import AttackContext, learn
from wootz.attacks.extraction.thief import Thief
from wootz.data import Split
from wootz.training import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner(Thief):
    """How the thief trains; the settings of thefts that do build on it.

    Attributes:
        loss: `natural`, or adversarial (`pgd-at`, `n-fgsm`) at the customary budget.
        epochs: passes over the images.
        batch_size: images a step.
        lr: peak learning rate of AdamW.
    """

    loss: Literal["natural", "pgd-at", "n-fgsm"] = "natural"
    epochs: int = 15
    batch_size: int = 128
    lr: float = 2e-3

    def __post_init__(self) -> None:
        Thief.__post_init__(self)
        checks.at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        checks.positive(lr=self.lr)


def imitate(
    cfg: Learner, model: nn.Module, pixels: Tensor, answers: Tensor, context: AttackContext, name: str = "thief"
) -> nn.Module:
    """Return a copy of `model` trained on images uint8 [N, C, H, W] and distributions [N, K], in eval mode.

    The epoch is chosen by agreement with the answers; true labels have no part in it.
    """
    recipe = Recipe(loss=cfg.loss, eps=context.eps, epochs=cfg.epochs, batch_size=cfg.batch_size, lr=cfg.lr)
    return learn(recipe, model, Split(pixels, answers.argmax(1)), context, name, targets=answers)
