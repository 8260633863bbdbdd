"""Redrawing the boundaries that a watermark bent, after WRK (Xiao et al., arXiv 2511.07947): our own reading.

We know the paper's abstract only: its removal attack exploits "decision boundaries shaped by prevailing sample-level
watermark artifacts". As we read it: triggers sit where a large change of an ordinary image is given a strange class.
So go there by adversarial examples of a high budget towards every other class, out of the marked model itself,
give them the class of the image that they came from, and train on them beside clean images.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.evasion import PGD, pgd, predict_logits
from wootz.attacks.evasion.balls import to_pixels
from wootz.attacks.removal.tuning import Tuning, tune
from wootz.data import Split

_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrk(Tuning):
    """How far out, and how long.

    Attributes:
        eps: L-inf budget of the adversarial examples; None means twice the customary one, at most 0.5.
        steps: of targeted PGD.
    """

    epochs: int = 10
    lr: float = 5e-3
    eps: float | None = None
    steps: int = 20

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)
        checks.at_least(1, steps=self.steps)
        if self.eps is not None:
            checks.inside(0, 1, eps=self.eps)


def wrk(cfg: Wrk, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model`, trained on clean images and on its adversarial ones, both with true labels."""
    return tune(
        cfg, model, context, share=Split(*map(torch.cat, zip(context.data, far_out(cfg, model, context), strict=True)))
    )


def far_out(cfg: Wrk, model: nn.Module, context: AttackContext) -> Split:
    """Return one adversarial image for each of the attacker's, towards a random wrong class, with the true label."""
    device = context.execution.accelerator
    net, data = copy.deepcopy(model).to(device), context.data
    attack = PGD(eps=cfg.eps or min(2 * context.eps, 0.5), steps=cfg.steps, targeted=True)
    count = predict_logits(model, data.subset(slice(1)).images()).shape[1]
    aims = (data.labels + torch.randint(1, count, data.labels.shape, generator=context.generator("aims"))) % count
    found = []
    for number, rows in enumerate(torch.arange(len(data)).split(_BATCH)):
        x = data.subset(rows).images()
        stream = context.generator("points", number, device=device)
        points = pgd(attack, net, x.to(device), aims[rows].to(device), generator=stream)
        found.append(to_pixels(points.cpu(), x))
    return Split(torch.cat(found), data.labels)
