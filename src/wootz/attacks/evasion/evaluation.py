"""Clean and robust accuracy, in float32, with reliability flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wootz.attacks.evasion.attacks import ATTACKS
from wootz.attacks.evasion.auto_pgd import APGD
from wootz.attacks.evasion.autoattack import reference_autoattack
from wootz.attacks.evasion.balls import check_ball
from wootz.attacks.evasion.bounds import certified
from wootz.attacks.evasion.ensemble import AttackStep, EvaluationTarget, attack_ensemble
from wootz.attacks.evasion.projected_gradient import PGD, pgd
from wootz.attacks.evasion.reliability import BLACK_BOX_BETTER, reliability
from wootz.attacks.evasion.square import Square
from wootz.errors import ConfigError, DataError, ModelError
from wootz.modes import device_of, eval_mode
from wootz.registry import lookup
from wootz.rng import generator
from wootz.types import Norm


def _targeted(targets: int, nearest: float) -> AttackStep:
    cfg = APGD(eps=0, loss="targeted-dlr", targets=targets)
    return AttackStep(f"apgd-t-{targets}", "apgd-t", cfg, nearest=nearest)


_FIRST = (
    AttackStep("pgd-20", "pgd", PGD(eps=0, steps=20, stop=True)),
    AttackStep("apgd-ce", "apgd-ce", APGD(eps=0)),
    _targeted(3, 1),
)

EVALUATIONS: Mapping[str, tuple[AttackStep, ...]] = MappingProxyType(
    {
        "pgd-40x2": (AttackStep("pgd-40x2", "pgd", PGD(eps=0, steps=40, restarts=2, stop=True)),),
        "pgd-50x10": (AttackStep("pgd-50x10", "pgd", PGD(eps=0, steps=50, restarts=10, stop=True)),),
        "ensemble": (*_FIRST, _targeted(9, 0.2), AttackStep("square", "square", Square(eps=0, queries=1500))),
        "ensemble-long": (*_FIRST, _targeted(9, 0.5), AttackStep("square", "square", Square(eps=0))),
        "pgd-25": (AttackStep("pgd-25", "pgd", PGD(eps=0, steps=25, reach=1.0, keep="last")),),
        "autoattack": (),
        "ibp": (),
    }
    | {name: (AttackStep(name, name, row.config),) for name, row in ATTACKS.items() if name != "pgd"}
)
"""Evaluations by name, and every attack alone; the budget is set by the caller.

`ensemble` runs the cheap attacks first, then the targeted ones, most of them on the images with the largest margin
only, and a black-box attack last, which is not affected by masked gradients. Its strength is matched to `autoattack`,
the reference ensemble, so that results are comparable: on held-out images, 1,500 queries of this package's Square,
which never queries a point twice, succeed slightly more often than the reference's 5,000 (docs/results/attacks.md).
`ensemble-long` also spends 5,000 and may be stronger than the reference. `pgd-25` reproduces the evaluation of the
paper that introduced the training attack, for comparison, and is weak: 25 steps of 0.04 eps from one random start,
evaluated at the last step.

All of these give upper bounds of robust accuracy. `ibp` gives a lower bound: it runs no attack and counts the images
whose whole L-inf ball is certified by interval bounds.
"""

QUICK_ATTACK = "pgd-40x2"

NAMES: Mapping[str, str] = MappingProxyType({"pgd": QUICK_ATTACK} | {name: name for name in EVALUATIONS})
"""What a user may call an evaluation."""

_MAX_BLACK_BOX = 0.005  # the fraction of images on which only the black-box attack may succeed without a flag


class Robustness(NamedTuple):
    """The result of an evaluation.

    Attributes:
        correct: the images that are classified correctly, [N] bool.
        robust: those that are classified correctly at every point tried (at every point of the ball for `ibp`),
            [N] bool.
        first_success: attack -> the number of images on which it was the first to succeed; empty for `ibp`.
        flags: the reasons why the robust accuracy may be too high; empty if there are none.
    """

    correct: Tensor
    robust: Tensor
    first_success: Mapping[str, int]
    flags: tuple[str, ...]

    @property
    def clean(self) -> float:
        """Clean accuracy, a fraction."""
        return self.correct.float().mean().item()

    @property
    def accuracy(self) -> float:
        """Robust accuracy, a fraction: the worst case of each image over all restarts and attacks, or certified."""
        return self.robust.float().mean().item()


def predict_logits(model: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """Return logits float32 [N, K] of images [N, C, H, W], on their device; in eval mode and without gradients.

    Raises:
        ModelError: a logit is NaN or infinite, which is no answer.
    """
    device = device_of(model)
    with eval_mode(model), torch.no_grad():
        logits = torch.cat([model(batch.to(device)).float().to(x.device) for batch in x.split(batch_size)])
    if invalid := int((~logits.isfinite().flatten(1).all(1)).sum()):
        raise ModelError(f"the model returns NaN or infinity for {invalid} of {len(x)} images")
    return logits


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    attack: str = QUICK_ATTACK,
    norm: Norm = "Linf",
    seed: int = 0,
    batch_size: int = 500,
    folder: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Robustness:
    """Attack the images that are classified correctly and return which of them are robust.

    Args:
        model: images in [0, 1] -> logits.
        x: images float32 [N, C, H, W] in [0, 1], on the model's device.
        y: true labels int64 [N], on the same device.
        eps: the budget, in pixels of [0, 1].
        attack: a name of `NAMES`.
        norm: the norm of the ball.
        seed: the seed of the attacks' randomness.
        batch_size: the number of images attacked at a time.
        folder: the folder in which an interrupted evaluation leaves its state; the same evaluation resumes from it.
        progress: the callback that receives the fraction done, 0 to 1.

    Raises:
        ConfigError: the evaluation is unknown, `eps` is out of range, or `ibp` is asked for in a norm other than Linf.
        DataError: there are no images, images are outside [0, 1], or labels do not fit the model.
        ModelError: the model returns NaN or infinity, or the evaluation is `ibp`, and a layer has no bounds.
    """
    attack = lookup(NAMES, attack, "evaluation")
    steps = EVALUATIONS[attack]
    check_ball(x, eps, norm)
    if len(x) == 0 or len(x) != len(y):
        raise DataError(f"{len(x)} images and {len(y)} labels: must be equally many, one at least")
    logits = predict_logits(model, x)
    if not 0 <= int(y.min()) <= int(y.max()) < logits.shape[1]:
        raise DataError(f"labels from {int(y.min())} to {int(y.max())}, but the model has {logits.shape[1]} classes")
    correct = logits.argmax(1) == y
    target = EvaluationTarget(
        model=model, x=x, y=y, eps=eps, norm=norm, seed=seed, batch_size=batch_size, folder=folder
    )
    if attack == "ibp":
        return Robustness(correct, _by_bounds(target, correct, progress), MappingProxyType({}), ())
    flags = set(reliability(model, x[correct], y[correct], norm=norm, seed=seed))
    if steps:
        robust, first_success = attack_ensemble(steps, target, correct, progress)
        if first_success.get("square", 0) > _MAX_BLACK_BOX * len(x):
            flags.add(BLACK_BOX_BETTER)
    else:
        robust, raised = _by_reference(target, correct, progress)
        first_success, flags = {attack: int(correct.sum() - robust.sum())}, flags | raised
    return Robustness(correct, robust, MappingProxyType(first_success), tuple(sorted(flags)))


def _by_reference(
    target: EvaluationTarget, correct: Tensor, progress: Callable[[float], None]
) -> tuple[Tensor, set[str]]:
    robust, flags = correct.clone(), set[str]()
    batches = _batches(target, correct)
    for number, batch in enumerate(batches, 1):
        result = reference_autoattack(
            target.model, target.x[batch], target.y[batch], eps=target.eps, norm=target.norm, seed=target.seed
        )
        robust[batch], flags = result.robust, flags | set(result.flags)
        progress(number / len(batches))
    return robust, flags


def _by_bounds(target: EvaluationTarget, correct: Tensor, progress: Callable[[float], None]) -> Tensor:
    if target.norm != "Linf":
        raise ConfigError(f"norm = {target.norm!r}: bounds are for Linf only; attack in {target.norm} instead")
    robust = correct.clone()
    batches = _batches(target, correct)
    for number, batch in enumerate(batches, 1):
        robust[batch] = certified(target.model, target.x[batch], target.y[batch], target.eps)
        progress(number / len(batches))
    return robust


def _batches(target: EvaluationTarget, correct: Tensor) -> tuple[Tensor, ...]:
    """Return the indices of the correct images in batches; none if no image is correct."""
    rows = correct.nonzero().squeeze(1)
    return rows.split(target.batch_size) if len(rows) else ()


def accuracy_curve(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: Sequence[float], norm: Norm = "Linf", seed: int = 0
) -> list[float]:
    """Return robust accuracy (PGD-20, one restart) at each budget of `eps`, as fractions.

    Accuracy at a budget counts the images that were robust at all budgets before it.
    """
    robust = predict_logits(model, x).argmax(1) == y
    curve = []
    for budget in eps:
        cfg = PGD(eps=budget, norm=norm, steps=20, stop=True)
        points = pgd(cfg, model, x, y, generator=generator(seed, "curve", device=x.device))
        robust = robust & (predict_logits(model, points).argmax(1) == y)
        curve.append(robust.float().mean().item())
    return curve
