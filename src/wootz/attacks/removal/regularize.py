"""Regularization (Shafieinejad et al., arXiv 1906.07745): shrink the weights while training, then let them recover."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext, learn
from wootz.attacks.removal.tuning import Tuning, tune
from wootz.training import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularize(Tuning):
    """How hard the weights are pulled to zero; the recovery has the epochs and the learning rate of `Tuning`.

    Attributes:
        decay: weight decay of the first phase, decoupled: a step scales weights by 1 - lr * decay.
        shrinking: epochs of the first phase.
        shrinking_lr: its peak learning rate.
    """

    decay: float = 10.0
    shrinking: int = 5
    shrinking_lr: float = 1e-2
    epochs: int = 5

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)
        checks.not_negative(decay=self.decay)
        checks.at_least(1, shrinking=self.shrinking)
        checks.positive(shrinking_lr=self.shrinking_lr)


def regularize(cfg: Regularize, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model`, shrunk and recovered."""
    recipe = Recipe(
        loss=cfg.loss,
        eps=context.eps,
        epochs=cfg.shrinking,
        batch_size=cfg.batch_size,
        lr=cfg.shrinking_lr,
        weight_decay=cfg.decay,
    )
    return tune(cfg, learn(recipe, model, context.data, context, "shrunk"), context)
