"""The founding paper's black box: Jacobian-based augmentation (Papernot et al., arXiv 1602.02697).

A few seeds double again and again: each image gives a new one, moved to where the substitute's answer changes
fastest, and the victim labels it. Settings follow the code of arXiv 2312.14260.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.adversary import AttackContext, learn
from wootz.attacks.extraction.asking import answered
from wootz.attacks.extraction.ledger import Ledger
from wootz.attacks.extraction.thief import Thief
from wootz.data import Split
from wootz.errors import ConfigError
from wootz.modes import eval_mode
from wootz.training import Recipe

_BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Jacobian(Thief):
    """How the set grows, and how the substitute trains in each of `doublings` + 1 rounds.

    Attributes:
        seeds: images to start from, drawn from the thief's. The paper draws them from the test images; we do not.
        doublings: how often the set doubles; the attack costs `seeds * 2 ** doublings` queries.
        lam: how far each pixel moves, in pixels of [0, 1].
        loss: `natural`, or `pgd-at`: the grey box, whose substitute trains adversarially at the customary budget.
        steps: of that adversarial training; unused by `natural`. The paper's are 25, an hour on two cores; ours go as
            far in all.
        step_size: their length, in pixels of [0, 1]. The paper's is 0.01.
        epochs: passes over the set, a round.
        batch_size: images a step.
        lr: constant learning rate of SGD with momentum 0.9. Ours is Nesterov's, the paper's plain.
        weight_decay: of SGD.
    """

    model: str = "paper-thief"
    seeds: int = 200
    doublings: int = 8
    lam: float = 0.1
    loss: Literal["natural", "pgd-at"] = "natural"
    steps: int = 2
    step_size: float = 0.125
    epochs: int = 10
    batch_size: int = 32
    lr: float = 5e-3
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        Thief.__post_init__(self)
        checks.at_least(20, seeds=self.seeds)
        checks.at_least(0, doublings=self.doublings)
        checks.at_least(1, steps=self.steps, epochs=self.epochs, batch_size=self.batch_size)
        checks.within(0, 1, lam=self.lam)
        checks.positive(step_size=self.step_size, lr=self.lr)
        checks.not_negative(weight_decay=self.weight_decay)

    @property
    def queries(self) -> int:
        """How many queries the whole attack needs."""
        return self.seeds << self.doublings


def steal_by_jacobian(cfg: Jacobian, victim: Ledger, context: AttackContext) -> nn.Module:
    """Train a substitute on a set that doubles; true labels are not used.

    The substitute is trained on from round to round, as in the authors' own code (the paper leaves it open). New
    images are in whole grey levels, so that what is asked is what is learned.

    Raises:
        BudgetError: the budget does not hold all `cfg.queries`; nothing is asked.
    """
    if cfg.seeds > len(context.data):
        raise ConfigError(f"seeds = {cfg.seeds}: the thief has {len(context.data)} images")
    pixels = context.data.pixels[torch.randperm(len(context.data), generator=context.generator("seeds"))[: cfg.seeds]]
    answers = answered(victim, pixels, context, "asked-0", need=cfg.queries)
    substitute = _trained(cfg, context.fresh("thief"), pixels, answers, context, 0)
    for number in range(1, cfg.doublings + 1):
        moved = augmented(substitute, pixels, answers.argmax(1), cfg.lam)
        answers = torch.cat([answers, answered(victim, moved, context, f"asked-{number}")])
        pixels = torch.cat([pixels, moved])
        substitute = _trained(cfg, substitute, pixels, answers, context, number)
    return substitute


def augmented(model: nn.Module, pixels: Tensor, y: Tensor, lam: float) -> Tensor:
    """Return uint8 images moved by `lam` times the sign of the gradient of logit `y`, within [0, 1].

    Args:
        model: the substitute; borrowed.
        pixels: images uint8 [N, C, H, W].
        y: the class that the victim gave each, int64 [N].
        lam: how far, in pixels of [0, 1].
    """
    moved = []
    with eval_mode(model):
        for part, label in zip(pixels.split(_BATCH), y.split(_BATCH), strict=True):
            x = part.float().div_(255).requires_grad_(True)
            (slope,) = torch.autograd.grad(model(x).gather(1, label[:, None]).sum(), x)
            moved.append((x.detach() + lam * slope.sign()).clamp_(0, 1).mul_(255).round_().to(torch.uint8))
    return torch.cat(moved)


def _trained(
    cfg: Jacobian, model: nn.Module, pixels: Tensor, answers: Tensor, context: AttackContext, number: int
) -> nn.Module:
    recipe = Recipe(
        loss=cfg.loss,
        eps=context.eps,
        steps=cfg.steps,
        step_size=cfg.step_size / context.eps,
        epochs=cfg.epochs,
        batch_size=cfg.batch_size,
        optimizer="sgd",
        lr=cfg.lr,
        schedule="constant",
        warmup=0.0,
        weight_decay=cfg.weight_decay,
    )
    share = Split(pixels, answers.argmax(1))
    return learn(recipe, model, share, context, f"substitute-{number}", targets=answers)
