"""The settings of a training run: everything that changes its result, and nothing that only changes its speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wootz import checks
from wootz.errors import ConfigError
from wootz.types import Norm

CERTIFIED = ("ibp", "crown-ibp")
"""Losses by bounds alone."""

BOUNDED = (*CERTIFIED, "mtl-ibp")
"""Losses that bounds enter."""

_PERTURBED = ("pgd-at", "trades", "mart")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        loss: a name of `LOSSES`.
        eps: training budget, in pixels of [0, 1]; unused by `natural`.
        norm: of the ball.
        steps: attack steps a batch (one for single-step losses).
        step_size: of the attack, as a share of the current eps; None means 2.5 / steps.
        attack_mode: the net's mode under attack: `eval`, or `train` for the founding paper's way, with dropout on and
            batch statistics updated by every attack step.
        robust_weight: of the divergence in `trades` and `mart`; None means the source's, 6 and 5.
        awp_gamma: how far adversarial weight perturbation moves each layer of `pgd-at`, `trades` or `mart`, as a share
            of its norm; 0 is off, 0.005 the source's.
        awp_warmup: epochs before weights are perturbed.
        kappa: weight of the images themselves in losses by bounds, once eps has its full size; it falls from 1.
        alpha: weight of the worst case by bounds in `mtl-ibp`, beside PGD's.
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
        shift: farthest shift of a training image along each axis, in pixels, drawn anew whenever it is met.
        mirror: whether half of the training images are met mirrored, left to right.
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
            raise ConfigError(f"norm = {self.norm!r}: bounds, and so the loss {self.loss!r}, are for Linf only")
        if self.awp_gamma and self.loss not in _PERTURBED:
            raise ConfigError(f"awp_gamma = {self.awp_gamma:g}: goes with {', '.join(_PERTURBED)}, not {self.loss!r}")
