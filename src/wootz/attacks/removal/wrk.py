"""Training on high-budget adversarial examples, after WRK (Xiao et al., arXiv 2511.07947): our own reading.

Only the abstract of the paper was available; its removal attack exploits "decision boundaries shaped by prevailing
sample-level watermark artifacts". In this reading, triggers lie where a large change of an ordinary image leads to a
wrong class. The attack therefore generates high-budget adversarial examples of the marked model itself, towards every
other class, and trains on them with the true labels, next to clean images.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from wootz import checks
from wootz.attacks.context import AttackContext
from wootz.attacks.evasion import PGD, pgd, predict_logits
from wootz.attacks.evasion.balls import to_pixels
from wootz.attacks.removal.finetune import FinetuneConfig, finetune
from wootz.data import Split

_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrk(FinetuneConfig):
    """The budget and the steps of the adversarial examples.

    Attributes:
        eps: the L-inf budget, in pixels of [0, 1]; None means twice the public budget, at most 0.5.
        steps: the number of steps of targeted PGD.
    """

    epochs: int = 10
    lr: float = 5e-3
    eps: float | None = None
    steps: int = 20

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        checks.at_least(1, steps=self.steps)
        if self.eps is not None:
            checks.inside(0, 1, eps=self.eps)


def wrk(cfg: Wrk, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` trained on clean images and on their adversarial examples, both with true labels."""
    clean, adversarial = context.data, high_budget_examples(cfg, model, context)
    data = Split(torch.cat([clean.pixels, adversarial.pixels]), torch.cat([clean.labels, adversarial.labels]))
    return finetune(cfg, model, context, data=data)


def high_budget_examples(cfg: Wrk, model: nn.Module, context: AttackContext) -> Split:
    """Return one adversarial example per image, towards a random wrong class, with the true label."""
    device = context.execution.accelerator
    net, data = copy.deepcopy(model).to(device), context.data
    attack = PGD(eps=cfg.eps or min(2 * context.eps, 0.5), steps=cfg.steps, targeted=True)
    classes = predict_logits(model, data.subset(slice(1)).images()).shape[1]
    offsets = torch.randint(1, classes, data.labels.shape, generator=context.generator("aims"))
    targets = (data.labels + offsets) % classes
    pixels = []
    for number, rows in enumerate(torch.arange(len(data)).split(_BATCH)):
        x = data.subset(rows).images()
        stream = context.generator("points", number, device=device)
        points = pgd(attack, net, x.to(device), targets[rows].to(device), generator=stream)
        pixels.append(to_pixels(points.cpu(), x))
    return Split(torch.cat(pixels), data.labels)
