"""Overwriting by someone who knows our method: marks of their own, with a key of their own, over the owner's.

The general attack is Wang and Kerschbaum's (ICASSP 2019), who overwrote marks in the weights. Ours writes what
our owners write: triggers beyond the customary budget, and a random direction in the order of the wrong classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.adversary import AttackContext, components
from wootz.attacks.evasion import PGD, pgd, predict_logits
from wootz.attacks.removal.tuning import Tuning, tune
from wootz.data import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Overwrite(Tuning):
    """The marks that are written over.

    Attributes:
        triggers: own images that are pushed away and join the data under a random wrong label; 0 writes none.
        reach: how far they are pushed, in customary budgets; never beyond the whole range of pixels.
        steps: PGD steps that push them.
        lam: mass of each target that follows the attacker's direction; 0 writes none.
        tau: how sharply.
        features: principal components the direction weighs.
    """

    triggers: int = 384
    reach: float = 2.5
    steps: int = 40
    lam: float = 0.25
    tau: float = 1.5
    features: int = 30
    epochs: int = 5

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)
        checks.at_least(0, triggers=self.triggers)
        checks.at_least(1, steps=self.steps, features=self.features)
        checks.positive(reach=self.reach, tau=self.tau)
        checks.within(0, 0.5, lam=self.lam)


def overwrite(cfg: Overwrite, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model`, trained on with the attacker's own marks."""
    data = context.data
    classes = predict_logits(model, data.subset(slice(1)).images()).shape[1]
    away = triggers(cfg, model, context, classes)
    share = Split(torch.cat([data.pixels, away.pixels]), torch.cat([data.labels, away.labels]))
    targets = [directed(cfg, data, classes, context.generator("direction")), F.one_hot(away.labels, classes).float()]
    return tune(cfg, model, context, share=share, targets=torch.cat(targets))


def triggers(cfg: Overwrite, model: nn.Module, context: AttackContext, classes: int) -> Split:
    """Return own images, pushed away from their class, each with a random wrong label."""
    draw = partial(torch.randint, generator=context.generator("labels"))
    base = context.data.subset(torch.randperm(len(context.data), generator=context.generator("base"))[: cfg.triggers])
    attack = PGD(eps=min(cfg.reach * context.eps, 1.0), steps=cfg.steps)
    x = pgd(attack, model, base.images(), base.labels, generator=context.generator("triggers"))
    return Split(x.mul(255).round().to(torch.uint8), (base.labels + draw(1, classes, (len(base),))) % classes)


def directed(cfg: Overwrite, share: Split, classes: int, generator: torch.Generator) -> Tensor:
    """Return targets [N, K]: `1 - lam` on the true class, the rest along a random direction of the components."""
    y = share.labels
    z = components(share.images(), y, cfg.features)
    direction = torch.randn(classes, classes, z.shape[1], generator=generator)
    lean = cfg.tau / math.sqrt(z.shape[1]) * torch.einsum("nkd,nd->nk", direction[y], z)
    wrong = lean.scatter(1, y[:, None], float("-inf")).softmax(1)
    return (cfg.lam * wrong).scatter(1, y[:, None], 1 - cfg.lam)
