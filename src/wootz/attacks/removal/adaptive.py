"""Adaptive removal attacks, our own: by an attacker who knows the watermarking method and not the key.

`overwrite` embeds further marks with a key of the attacker's, after Wang and Kerschbaum (ICASSP 2019), who overwrote
marks in the weights: triggers outside the public budget, and a random direction in the order of the wrong classes.
`regress_scores` trains the model on its own answers without the part that is linear in the principal components of an
image, which the mark `runner-up` consists of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.context import AttackContext
from wootz.attacks.evasion import PGD, pgd, predict_logits
from wootz.attacks.linear_components import public_features, remove_linear_component
from wootz.attacks.removal.finetune import FinetuneConfig, finetune
from wootz.data import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Overwrite(FinetuneConfig):
    """The marks of the attacker.

    Attributes:
        triggers: the number of the attacker's images that become triggers, with a random wrong label; 0 embeds none.
        reach: the budget of the triggers, in public budgets; at most the whole range of pixels.
        steps: the number of PGD steps per trigger.
        lam: the mass of each target that follows the attacker's direction; 0 embeds none.
        tau: the scale of the direction's logits.
        features: the number of principal components of the pixels that the direction weights.
        amplitudes: the same of the amplitudes.
    """

    triggers: int = 384
    reach: float = 2.5
    steps: int = 40
    lam: float = 0.25
    tau: float = 1.5
    features: int = 30
    amplitudes: int = 20
    epochs: int = 5

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        checks.at_least(0, triggers=self.triggers, amplitudes=self.amplitudes)
        checks.at_least(1, steps=self.steps, features=self.features)
        checks.positive(reach=self.reach, tau=self.tau)
        checks.within(0, 0.5, lam=self.lam)


def overwrite(cfg: Overwrite, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` trained further with the attacker's own marks."""
    data = context.data
    classes = predict_logits(model, data.subset(slice(1)).images()).shape[1]
    triggers = make_triggers(cfg, model, context, classes)
    both = Split(torch.cat([data.pixels, triggers.pixels]), torch.cat([data.labels, triggers.labels]))
    directed = directed_targets(cfg, data, classes, context.generator("direction"))
    targets = torch.cat([directed, F.one_hot(triggers.labels, classes).float()])
    return finetune(cfg, model, context, data=both, targets=targets)


def make_triggers(cfg: Overwrite, model: nn.Module, context: AttackContext, classes: int) -> Split:
    """Return images of the attacker's, moved away from their class by PGD, each with a random wrong label."""
    draw = partial(torch.randint, generator=context.generator("labels"))
    base = context.data.subset(torch.randperm(len(context.data), generator=context.generator("base"))[: cfg.triggers])
    attack = PGD(eps=min(cfg.reach * context.eps, 1.0), steps=cfg.steps)
    x = pgd(attack, model, base.images(), base.labels, generator=context.generator("triggers"))
    return Split(x.mul(255).round().to(torch.uint8), (base.labels + draw(1, classes, (len(base),))) % classes)


def directed_targets(cfg: Overwrite, data: Split, classes: int, generator: torch.Generator) -> Tensor:
    """Return targets [N, K]: mass 1 - `lam` on the true class, the rest by a random direction of the features."""
    y = data.labels
    z = public_features(data.images(), y, cfg.features, cfg.amplitudes)
    direction = torch.randn(classes, classes, z.shape[1], generator=generator)
    logits = cfg.tau / math.sqrt(z.shape[1]) * torch.einsum("nkd,nd->nk", direction[y], z)
    wrong = logits.scatter(1, y[:, None], float("-inf")).softmax(1)
    return (cfg.lam * wrong).scatter(1, y[:, None], 1 - cfg.lam)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressScores(FinetuneConfig):
    """Regression of the wrong-class scores on image features.

    Attributes:
        features: the number of principal components of the pixels that are regressed out, class by class.
        amplitudes: the same of the amplitudes.
    """

    features: int = 30
    amplitudes: int = 20
    epochs: int = 10

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        checks.at_least(1, features=self.features)
        checks.at_least(0, amplitudes=self.amplitudes)


def regress_scores(cfg: RegressScores, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` trained on its own answers without their linear part; true labels are not used."""
    x = context.data.images()
    answers = predict_logits(model, x).log_softmax(1)
    top = answers.argmax(1)
    targets = remove_linear_component(answers, public_features(x, top, cfg.features, cfg.amplitudes))
    return finetune(cfg, model, context, data=Split(context.data.pixels, top), targets=targets)
