"""The training settings that change the result, and the learning-rate and eps schedules that they define.

Settings that change only the speed are in `execution`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from wootz import checks
from wootz.errors import ConfigError
from wootz.types import Norm

CERTIFIED = ("ibp", "crown-ibp")
"""Losses computed from bounds alone."""

BOUNDED = (*CERTIFIED, "mtl-ibp")
"""Losses with a term computed from bounds."""

_PERTURBED = ("pgd-at", "trades", "mart")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of a training run.

    Attributes:
        loss: a name in `LOSSES`.
        eps: the training budget, in units of the pixel range [0, 1]; unused by `natural`.
        norm: the norm of the ball.
        steps: attack steps per batch (single-step losses take one).
        step_size: the attack's step size, as a fraction of the current eps; None means 2.5 / steps.
        attack_mode: the mode of the network during the attack: `eval`, or `train` as in the founding paper, with
            dropout on and batch statistics updated by every attack step.
        robust_weight: the weight of the KL divergence in `trades` and `mart`; None means the source's, 6 and 5.
        awp_gamma: the size of the adversarial weight perturbation of each layer in `pgd-at`, `trades` or `mart`, as a
            fraction of the layer's norm; 0 is off, the source uses 0.005.
        awp_warmup: epochs before the weights are perturbed.
        kappa: the weight of the natural loss in certified losses once eps has reached its full size; it falls from 1.
        alpha: the weight of the worst case by bounds in `mtl-ibp`; PGD's has the rest.
        epochs: passes over the training images.
        batch_size: images per step, over all processes.
        optimizer: AdamW, or SGD with Nesterov momentum 0.9.
        lr: the peak learning rate.
        schedule: the learning rate after its warm-up: half a cosine down to near zero, or constant.
        warmup: the fraction of training during which the learning rate rises from near zero.
        ramp: the fraction of training during which eps rises from zero (without a ramp small networks collapse to a
            constant).
        weight_decay: the optimizer's weight decay.
        label_smoothing: probability taken from the target class, where no mark sets its own targets.
        ema: the decay of the averaged weights that are returned; 0 returns the last weights.
        shift: the largest random shift of a training image along each axis, in pixels.
        mirror: whether training images are flipped left to right at random.
    """

    loss: str = "pgd-at"
    eps: float = 0.25
    norm: Norm = "Linf"
    steps: int = 3
    step_size: float | None = None
    attack_mode: Literal["eval", "train"] = "eval"
    robust_weight: float | None = None
    awp_gamma: float = 0.0
    awp_warmup: int = 0
    kappa: float = 0.5
    alpha: float = 0.1
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
    shift: int = 0
    mirror: bool = False

    def __post_init__(self) -> None:
        checks.inside(0, 1, eps=self.eps)
        checks.one_of(("Linf", "L2"), norm=self.norm)
        checks.at_least(1, steps=self.steps, epochs=self.epochs, batch_size=self.batch_size)
        checks.at_least(0, awp_warmup=self.awp_warmup, shift=self.shift)
        checks.positive(lr=self.lr)
        checks.within(0, 0.9, warmup=self.warmup, ramp=self.ramp, label_smoothing=self.label_smoothing)
        checks.one_of(("eval", "train"), attack_mode=self.attack_mode)
        checks.not_negative(weight_decay=self.weight_decay, awp_gamma=self.awp_gamma)
        checks.within(0, 0.9999, ema=self.ema)
        checks.within(0, 1, kappa=self.kappa, alpha=self.alpha)
        if self.step_size is not None:
            checks.positive(step_size=self.step_size)
        if self.robust_weight is not None:
            checks.not_negative(robust_weight=self.robust_weight)
        if self.loss in BOUNDED and self.norm != "Linf":
            raise ConfigError(f"norm = {self.norm!r}: the loss {self.loss!r} uses bounds, which exist for Linf only")
        if self.awp_gamma and self.loss not in _PERTURBED:
            raise ConfigError(f"awp_gamma = {self.awp_gamma:g}: applies to {', '.join(_PERTURBED)}, not {self.loss!r}")


def learning_rate(cfg: Recipe, done: float) -> float:
    """Return the learning rate after the fraction `done` of training: a linear warm-up, then `cfg.schedule`."""
    if done < cfg.warmup:
        return cfg.lr * max(done / cfg.warmup, 0.01)
    if cfg.schedule == "constant":
        return cfg.lr
    return cfg.lr * max(0.5 * (1 + math.cos(math.pi * (done - cfg.warmup) / (1 - cfg.warmup))), 0.005)


def eps_schedule(cfg: Recipe, done: float) -> float:
    """Return the training budget after the fraction `done` of training: a linear rise over `cfg.ramp` to `cfg.eps`."""
    return cfg.eps if done >= cfg.ramp else cfg.eps * done / cfg.ramp
