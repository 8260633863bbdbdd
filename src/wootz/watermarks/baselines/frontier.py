"""Mark `frontier`: adversarial frontier stitching (Le Merrer, Perez, Tredan, arXiv 1711.01894).

One FGSM step moves images to the decision boundary of their class. Half of the key consists of true adversaries, which
the step moves across the boundary, and half of false ones, which it does not; the model is trained to give all of them
their true class. The source takes the step on the finished model, which is then fine-tuned. Here the material has to be
fixed before a key, so the step is taken on an independent reference model, and the triggers are trained in passes after
each epoch.

Weak point: the label is the true one. An independent robust model answers many triggers correctly, including the
control half.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wootz import checks
from wootz.attacks.evasion import PGD, pgd, predict_logits
from wootz.checks import MAX_GRAY, gray_levels
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import Key, RegisteredMaterial
from wootz.training import Hook
from wootz.watermarks.baselines.trigger_training import trigger_epoch_hook
from wootz.watermarks.interface import MarkContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """How triggers are made and embedded.

    Attributes:
        count: number of embedded triggers, 100 in the source; twice as many are made, half of them true adversaries.
        size: size of the FGSM step, in pixels of [0, 1]; None for 1.5 training budgets, because the decision boundary
            of a robust model lies outside its balls.
        batch: triggers per step of the pass.
        frozen: leave the running batch statistics unchanged during the passes; the source's fine-tuning does not.
    """

    count: int = 100
    size: float | None = None
    batch: int = 16
    frozen: bool = False

    def __post_init__(self) -> None:
        checks.at_least(1, count=self.count, batch=self.batch)
        if self.size is not None:
            checks.inside(0, 1, size=self.size)


def prepare(cfg: Frontier, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Make the candidates from training images that the first panel model classifies correctly.

    Raises:
        ConfigError: the step gives too few true or too few false adversaries.
    """
    size = gray_levels(min(1.0, 1.5 * context.eps) if cfg.size is None else cfg.size) / MAX_GRAY
    order = torch.randperm(len(context.data.train), generator=generator)
    base, reference = context.data.train.subset(order), context.panel[0]
    step = PGD(eps=size, steps=1, step_size=size, random_start=False, keep="last")
    x = torch.cat(
        [
            pgd(step, reference, chunk.images(), chunk.labels, generator=generator)
            for chunk in (base.subset(rows) for rows in torch.arange(len(base)).split(512))
        ]
    )
    pixels = x.mul_(MAX_GRAY).round_().to(torch.uint8)
    correct = predict_logits(reference, base.images()).argmax(1) == base.labels
    still_correct = predict_logits(reference, pixels.float().div_(255)).argmax(1) == base.labels
    true, false = (
        mask.nonzero().squeeze(1)[: cfg.count] for mask in (correct & ~still_correct, correct & still_correct)
    )
    if min(len(true), len(false)) < cfg.count:
        raise ConfigError(
            f"frontier: a step of {size:g} gives {len(true)} true and {len(false)} false adversaries "
            f"of {cfg.count} each; set another size or a smaller count"
        )
    rows = torch.cat([true, false])[torch.randperm(2 * cfg.count, generator=generator)]
    params = {"size": str(size), "count": cfg.count}
    return RegisteredMaterial("half", {"pixels": pixels[rows], "labels": base.labels[rows]}, params)


def train_hook(cfg: Frontier, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the trigger pass after each epoch."""
    return trigger_epoch_hook(key, batch=cfg.batch, frozen=cfg.frozen)
