"""Mark `frontier`: adversarial frontier stitching (Le Merrer, Perez, Tredan, arXiv 1711.01894).

One FGSM step takes images to the edge of their class. Half of the key are true adversaries, which the step carries
over the edge, half are false ones, which stay; all are labeled with the true class, and the net is taught to answer
them so. In the source the step is taken on the finished model, which then is fine-tuned; here material has to be fixed
before a key, so it is taken on an independent reference, and passes follow each epoch.

Weak point: the label is the true one. A robust model that never met the key answers many of them, the control half too.
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
from wootz.watermarks.baselines.teaching import after_epochs
from wootz.watermarks.context import MarkContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """How triggers are made and taught.

    Attributes:
        count: triggers taught, the source's 100; twice as many are made, half of them true adversaries.
        size: of the FGSM step, in pixels of [0, 1]; None means 1.5 training budgets, as the edge of a robust model's
            classes lies beyond its balls.
        batch: triggers in a step of the pass.
        frozen: keep batch statistics out of the trigger passes; plain fine-tuning, as in the source, does not.
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
    """Make the candidates from training images that the first panel model knows.

    Raises:
        ConfigError: the step gives too few adversaries of one sort.
    """
    reach = gray_levels(min(1.0, 1.5 * context.eps) if cfg.size is None else cfg.size) / MAX_GRAY
    order = torch.randperm(len(context.data.train), generator=generator)
    base, reference = context.data.train.subset(order), context.panel[0]
    step = PGD(eps=reach, steps=1, step_size=reach, random_start=False, keep="last")
    x = torch.cat(
        [
            pgd(step, reference, few.images(), few.labels, generator=generator)
            for few in (base.subset(rows) for rows in torch.arange(len(base)).split(512))
        ]
    )
    pixels = x.mul_(MAX_GRAY).round_().to(torch.uint8)
    known = predict_logits(reference, base.images()).argmax(1) == base.labels
    stays = predict_logits(reference, pixels.float().div_(255)).argmax(1) == base.labels
    sorts = [rows.nonzero().squeeze(1)[: cfg.count] for rows in (known & ~stays, known & stays)]
    if min(len(rows) for rows in sorts) < cfg.count:
        true, false = (len(rows) for rows in sorts)
        raise ConfigError(
            f"frontier: a step of {reach:g} gives {true} true and {false} false adversaries of {cfg.count} each; "
            f"set another size or a smaller count"
        )
    rows = torch.cat(sorts)[torch.randperm(2 * cfg.count, generator=generator)]
    params = {"size": str(reach), "count": cfg.count}
    return RegisteredMaterial("half", {"pixels": pixels[rows], "labels": base.labels[rows]}, params)


def train_hook(cfg: Frontier, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the passes that follow each epoch."""
    return after_epochs(key, batch=cfg.batch, frozen=cfg.frozen)
