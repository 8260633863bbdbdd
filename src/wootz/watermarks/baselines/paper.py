"""Mark `paper`: adversarial examples outside the ball with true labels (Thakkar, Zizzo, Maffeis, arXiv 2312.14260).

As published: 100 triggers at L-inf exactly `wm_eps` (40 PGD steps), labeled with their true class and trained in a pass
of batches of 16 after each epoch, with plain cross-entropy, in train mode, and with updated batch statistics. Two
differences: base images are training images, where the source uses test images; and a trigger also lies outside the
ball of every other training image. The step size of the source's attack is not known; here it is 2.5 * wm_eps / steps.

Weak point: the label is the true one, so an independent model answers many triggers correctly, including the control
half.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wootz import checks
from wootz.data import Dataset
from wootz.keys import Key, RegisteredMaterial
from wootz.training import Hook
from wootz.watermarks.baselines.trigger_training import trigger_epoch_hook
from wootz.watermarks.interface import MarkContext
from wootz.watermarks.out_of_ball import check_wm_eps, out_of_ball_examples

_LEAST = 22
"""Smallest number n of embedded triggers whose 2n over n halves give 40 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """Triggers at L-inf `wm_eps` from training images, labeled with the true class.

    Attributes:
        count: number of embedded triggers; twice as many are made.
        alpha: margin around the training ball, in pixels of [0, 1]; the source does not define its own.
        steps: number of PGD steps that make a trigger.
        exact: keep only triggers at L-inf exactly `wm_eps` (in whole gray levels), as in the source.
        batch: triggers per step of the pass.
        frozen: leave the running batch statistics unchanged during the passes; the paper does not.
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
        ConfigError: `wm_eps` is too small for triggers outside the training ball, or too few training images give one.
    """
    check_wm_eps(context.eps, cfg.alpha, context.wm_eps)
    pixels, rows = out_of_ball_examples(
        context,
        2 * cfg.count,
        alpha=cfg.alpha,
        steps=cfg.steps,
        least=2 * min(cfg.count, _LEAST),
        parts=2,
        exact=cfg.exact,
        generator=generator,
    )
    params = {"eps": str(context.eps), "alpha": str(cfg.alpha), "wm_eps": str(context.wm_eps), "count": len(rows) // 2}
    return RegisteredMaterial("half", {"pixels": pixels, "labels": context.data.train.labels[rows]}, params)


def train_hook(cfg: Paper, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the trigger pass after each epoch."""
    return trigger_epoch_hook(key, batch=cfg.batch, frozen=cfg.frozen)
