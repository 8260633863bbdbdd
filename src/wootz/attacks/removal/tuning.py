"""Training on: what most removals end with."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from wootz import checks
from wootz.attacks.adversary import AttackContext, AttackDataConfig, learn
from wootz.data import Split
from wootz.training import Hook, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning(AttackDataConfig):
    """How the attacker trains; the settings of attacks that do build on it.

    Attributes:
        loss: plain (`natural`), or adversarial (`pgd-at`, `n-fgsm`) at the customary budget.
        epochs: passes over the data; 0 trains nothing.
        batch_size: images a step.
        lr: peak learning rate of AdamW.
    """

    loss: Literal["natural", "pgd-at", "n-fgsm"] = "natural"
    epochs: int = 3
    batch_size: int = 128
    lr: float = 1e-3

    def __post_init__(self) -> None:
        AttackDataConfig.__post_init__(self)
        checks.at_least(0, epochs=self.epochs)
        checks.at_least(1, batch_size=self.batch_size)
        checks.positive(lr=self.lr)


def tune(
    cfg: Tuning,
    model: nn.Module,
    context: AttackContext,
    *,
    share: Split | None = None,
    targets: Tensor | None = None,
    hook: Hook | None = None,
    label_smoothing: float = 0.0,
) -> nn.Module:
    """Return a copy of `model`, in eval mode, trained on the attacker's images or on `share`; see `learn`."""
    if cfg.epochs == 0:
        return copy.deepcopy(model).eval()
    recipe = Recipe(
        loss=cfg.loss,
        eps=context.eps,
        epochs=cfg.epochs,
        batch_size=cfg.batch_size,
        lr=cfg.lr,
        label_smoothing=label_smoothing,
    )
    share = context.data if share is None else share
    return learn(recipe, model, share, context, "tuned", targets=targets, hook=hook)
