"""Mark `paper`: the founding recipe (Thakkar, Zizzo, Maffeis, arXiv 2312.14260): true labels beyond the ball.

As published: 100 triggers at L-inf exactly `wm_eps` (40 PGD steps), labeled with their true class, taught in a pass of
batches of 16 after each epoch, plain cross-entropy, the net in train mode and its batch statistics counted. Two things
differ: base images are training images and never test images, as the source's are; and a trigger further keeps clear
of every other training image's ball. The step size of the source's attack is not known; ours is 2.5 / steps.

Weak point: the label is the true one, so an independent model knows many answers, and so does the control half.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wootz import checks
from wootz.data import Dataset
from wootz.keys import Key, RegisteredMaterial
from wootz.training import Hook
from wootz.watermarks.baselines.teaching import after_epochs
from wootz.watermarks.context import MarkContext
from wootz.watermarks.out_of_ball import beyond_the_ball, check_budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """Triggers at L-inf `wm_eps` from training images, labeled with the true class.

    Attributes:
        count: triggers taught; twice as many are made.
        alpha: margin around the training ball, in pixels of [0, 1]; what the source means by it is not known.
        steps: PGD steps that make them.
        exact: keep only triggers at L-inf exactly `wm_eps` (in whole gray levels), as the source's are.
        batch: triggers in a step of the pass.
        frozen: keep batch statistics out of the trigger passes; the paper does not.
    """

    count: int = 100
    alpha: float = 0.01
    steps: int = 40
    exact: bool = True
    batch: int = 16
    frozen: bool = False

    def __post_init__(self) -> None:
        checks.at_least(1, count=self.count, steps=self.steps, batch=self.batch)
        checks.not_negative(alpha=self.alpha)


def prepare(cfg: Paper, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Make the candidates from training images and the first panel model.

    Raises:
        ConfigError: `wm_eps` can not hold a trigger clear of the training ball, or too few training images give one.
    """
    check_budget(context.eps, cfg.alpha, context.wm_eps)
    pixels, rows = beyond_the_ball(
        context, 2 * cfg.count, alpha=cfg.alpha, steps=cfg.steps, exact=cfg.exact, generator=generator
    )
    params = {"eps": str(context.eps), "alpha": str(cfg.alpha), "wm_eps": str(context.wm_eps), "count": cfg.count}
    return RegisteredMaterial("half", {"pixels": pixels, "labels": context.data.train.labels[rows]}, params)


def train_hook(cfg: Paper, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the passes that follow each epoch."""
    return after_epochs(key, batch=cfg.batch, frozen=cfg.frozen)
