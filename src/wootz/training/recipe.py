"""The settings of a training run: everything that changes its result, and nothing that only changes its speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wootz import checks
from wootz.types import Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        loss: a name of `LOSSES`.
        eps: training budget, in pixels of [0, 1]; unused by `natural`.
        norm: of the ball.
        steps: attack steps a batch (one for single-step losses).
        step_size: of the attack, as a share of the current eps; None means 2.5 / steps.
        epochs: passes over the training images.
        batch_size: images a step, over all processes.
        optimizer: AdamW, or SGD with Nesterov momentum 0.9.
        lr: peak learning rate.
        schedule: of the learning rate after its warm-up: fall along a half cosine to zero, or stay.
        warmup: share of training in which the learning rate rises from zero.
        ramp: share of training in which eps rises from zero (without it small nets collapse to a constant).
        weight_decay: of the optimizer.
        label_smoothing: mass taken from the target class, for runs without a mark's own targets.
        ema: decay of the averaged weights that are kept; 0 keeps the last ones.
    """

    loss: str = "pgd-at"
    eps: float = 0.25
    norm: Norm = "Linf"
    steps: int = 3
    step_size: float | None = None
    epochs: int = 10
    batch_size: int = 128
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 2e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.1
    ramp: float = 0.3
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        checks.inside(0, 1, eps=self.eps)
        checks.one_of(("Linf", "L2"), norm=self.norm)
        checks.at_least(1, steps=self.steps, epochs=self.epochs, batch_size=self.batch_size)
        checks.positive(lr=self.lr)
        checks.within(0, 0.9, warmup=self.warmup, ramp=self.ramp, label_smoothing=self.label_smoothing)
        checks.not_negative(weight_decay=self.weight_decay)
        checks.within(0, 0.9999, ema=self.ema)
        if self.step_size is not None:
            checks.positive(step_size=self.step_size)
