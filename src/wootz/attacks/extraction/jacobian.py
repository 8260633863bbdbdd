"""Jacobian-based data set augmentation, JBDA (Papernot et al., arXiv 1602.02697).

The set of queries doubles in every round: each image yields a new one, moved in the direction in which the substitute's
score of the victim's label grows, and the victim labels it. Settings follow the code of arXiv 2312.14260.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.context import AttackContext, fit
from wootz.attacks.extraction.oracle import BudgetedOracle, query_all
from wootz.attacks.extraction.substitute import ExtractionConfig
from wootz.data import Split
from wootz.errors import ConfigError
from wootz.modes import eval_mode
from wootz.training import Recipe

_BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Jacobian(ExtractionConfig):
    """How the set grows, and how the substitute is trained in each of `doublings` + 1 rounds.

    Attributes:
        seeds: the number of images to start from, a random choice of the attacker's. The paper takes them from the test
            set; this implementation does not.
        doublings: the number of times the set doubles; the attack costs `seeds * 2 ** doublings` queries.
        lam: the change of each pixel, in pixels of [0, 1].
        loss: `natural`, or `pgd-at`: the grey-box attack, whose substitute is trained adversarially at the public
            budget.
        steps: PGD steps of the adversarial training; unused by `natural`. The paper takes 25, which need an hour on two
            cores; fewer and longer steps cover the same distance here.
        step_size: the length of a PGD step, in pixels of [0, 1]. The paper's is 0.01.
        epochs: the number of passes over the set per round.
        batch_size: the number of images per step.
        lr: the constant learning rate of SGD with momentum 0.9. Momentum is Nesterov's here, plain in the paper.
        weight_decay: the weight decay of SGD.
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
        ExtractionConfig.__post_init__(self)
        checks.at_least(20, seeds=self.seeds)
        checks.at_least(0, doublings=self.doublings)
        checks.at_least(1, steps=self.steps, epochs=self.epochs, batch_size=self.batch_size)
        checks.within(0, 1, lam=self.lam)
        checks.positive(step_size=self.step_size, lr=self.lr)
        checks.not_negative(weight_decay=self.weight_decay)

    @property
    def queries(self) -> int:
        """The number of queries of the whole attack."""
        return self.seeds << self.doublings


def extract_by_jacobian(cfg: Jacobian, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Train a substitute on a set of queries that doubles in every round; true labels are not used.

    Training continues from round to round, as in the authors' code (the paper leaves it open). New images are rounded
    to whole gray levels, so that the images queried equal the images trained on.

    Raises:
        BudgetError: the budget does not hold all `cfg.queries`; no query is sent.
        ConfigError: the attacker has fewer than `cfg.seeds` images.
    """
    if cfg.seeds > len(context.data):
        raise ConfigError(f"seeds = {cfg.seeds}: the attacker has {len(context.data)} images")
    pixels = context.data.pixels[torch.randperm(len(context.data), generator=context.generator("seeds"))[: cfg.seeds]]
    answers = query_all(victim, pixels, context, "asked-0", need=cfg.queries)
    substitute = _train(cfg, context.new_model("thief"), pixels, answers, context, 0)
    for number in range(1, cfg.doublings + 1):
        new = jacobian_augment(substitute, pixels, answers.argmax(1), cfg.lam)
        answers = torch.cat([answers, query_all(victim, new, context, f"asked-{number}")])
        pixels = torch.cat([pixels, new])
        substitute = _train(cfg, substitute, pixels, answers, context, number)
    return substitute


def jacobian_augment(model: nn.Module, pixels: Tensor, y: Tensor, lam: float) -> Tensor:
    """Return images uint8 moved by `lam` times the sign of the gradient of logit `y`, within [0, 1].

    Args:
        model: the substitute, used in eval mode and restored.
        pixels: images uint8 [N, C, H, W].
        y: the victim's label of each image, int64 [N].
        lam: the change of each pixel, in pixels of [0, 1].
    """
    moved = []
    with eval_mode(model):
        for batch, labels in zip(pixels.split(_BATCH), y.split(_BATCH), strict=True):
            x = batch.float().div_(255).requires_grad_(True)
            (gradient,) = torch.autograd.grad(model(x).gather(1, labels[:, None]).sum(), x)
            moved.append((x.detach() + lam * gradient.sign()).clamp_(0, 1).mul_(255).round_().to(torch.uint8))
    return torch.cat(moved)


def _train(
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
    data = Split(pixels, answers.argmax(1))
    return fit(recipe, model, data, context, f"substitute-{number}", targets=answers)
