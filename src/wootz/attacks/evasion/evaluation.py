"""Clean and robust accuracy, in float32, with reliability flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor, nn

from wootz.attacks.evasion.attacks import ATTACKS
from wootz.attacks.evasion.auto_pgd import APGD
from wootz.attacks.evasion.autoattack import reference_autoattack
from wootz.attacks.evasion.balls import check_ball
from wootz.attacks.evasion.black_box import answers_to, log_scores, predict_logits, top_labels
from wootz.attacks.evasion.bounds import certified
from wootz.attacks.evasion.ensemble import AttackStep, EvaluationTarget, attack_ensemble
from wootz.attacks.evasion.natural_evolution import NES
from wootz.attacks.evasion.projected_gradient import PGD, pgd
from wootz.attacks.evasion.reliability import BLACK_BOX_BETTER, LABELS_ONLY, reliability
from wootz.attacks.evasion.square import Square
from wootz.errors import ConfigError, DataError
from wootz.models import look_like_probabilities
from wootz.registry import lookup
from wootz.rng import generator
from wootz.types import Norm, Predict


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
        "black-box": (
            AttackStep("square", "square", Square(eps=0, queries=2500)),
            AttackStep("nes", "nes", NES(eps=0, queries=2500)),
        ),
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
evaluated at the last step. `black-box` needs no gradients: Square and NES, or HopSkipJump where answers are labels.

All of these give upper bounds of robust accuracy. `ibp` gives a lower bound: it runs no attack and counts the images
whose whole L-inf ball is certified by interval bounds.
"""

QUICK_ATTACK = "pgd-40x2"

NAMES: Mapping[str, str] = MappingProxyType({"pgd": QUICK_ATTACK} | {name: name for name in EVALUATIONS})
"""What a user may call an evaluation."""

BLACK_BOX = tuple(
    name for name, steps in EVALUATIONS.items() if steps and all(step.access != "weights" for step in steps)
)
"""The evaluations without gradients, which any `Predict` suffices for."""

_BATCH, _BLACK_BOX_BATCH = 500, 100
_MAX_BLACK_BOX = 0.005  # the fraction of images on which only the black-box attack may succeed without a flag


class Robustness(NamedTuple):
    """The result of an evaluation.

    Attributes:
        correct: the images that are classified correctly, [N] bool.
        robust: those that are classified correctly at every point tried (at every point of the ball for `ibp`),
            [N] bool.
        first_success: attack -> the number of images on which it was the first to succeed; empty for `ibp`.
        flags: the reasons why the robust accuracy may be too high; empty if there are none.
        queries: of an evaluation of `BLACK_BOX`, the number of queries of its attacks about each image, [N] int64.
    """

    correct: Tensor
    robust: Tensor
    first_success: Mapping[str, int]
    flags: tuple[str, ...]
    queries: Tensor | None = None

    @property
    def clean(self) -> float:
        """Clean accuracy, a fraction."""
        return self.correct.float().mean().item()

    @property
    def accuracy(self) -> float:
        """Robust accuracy, a fraction: the worst case of each image over all restarts and attacks, or certified."""
        return self.robust.float().mean().item()


def evaluate(
    model: nn.Module | Predict,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    attack: str = QUICK_ATTACK,
    norm: Norm = "Linf",
    seed: int = 0,
    batch_size: int | None = None,
    max_queries: int | None = None,
    folder: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Robustness:
    """Attack the images that are classified correctly and return which of them are robust.

    Args:
        model: images in [0, 1] -> logits; for the evaluations of `BLACK_BOX` any `Predict`: scores (also
            probabilities, whose logarithms are attacked) or labels, with NaN or -1 for an image without an answer.
        x: images float32 [N, C, H, W] in [0, 1], on the model's device.
        y: true labels int64 [N], on the same device.
        eps: the budget, in pixels of [0, 1].
        attack: a name of `NAMES`.
        norm: the norm of the ball.
        seed: the seed of the attacks' randomness.
        batch_size: the number of images attacked at a time; None is 500, and 100 for attacks by queries alone.
        max_queries: the number of queries that the attacks may spend on an image, in equal parts; None leaves each
            attack its own number.
        folder: the folder in which an interrupted evaluation leaves its state; the same evaluation resumes from it.
        progress: the callback that receives the fraction done, 0 to 1.

    Raises:
        ConfigError: the evaluation is unknown, needs gradients or scores that there are not, `eps` or `max_queries` is
            out of range, or `ibp` is asked for in a norm other than Linf.
        DataError: there are no images, images are outside [0, 1], or labels do not fit the model.
        ModelError: a module returns NaN or infinity, or the evaluation is `ibp`, and a layer has no bounds.
    """
    attack = lookup(NAMES, attack, "evaluation")
    check_black_box(attack, required=not isinstance(model, nn.Module), max_queries=max_queries)
    check_ball(x, eps, norm)
    if len(x) == 0 or len(x) != len(y):
        raise DataError(f"{len(x)} images and {len(y)} labels: must be equally many, one at least")
    clean = answers_to(model, x)
    if clean.dim() == 2 and not 0 <= int(y.min()) <= int(y.max()) < clean.shape[1]:
        raise DataError(f"labels from {int(y.min())} to {int(y.max())}, but the model has {clean.shape[1]} classes")
    steps, correct = _steps(attack, clean, max_queries), top_labels(clean) == y
    if not isinstance(model, nn.Module) and look_like_probabilities(clean):
        model = log_scores(model)
    target = EvaluationTarget(
        model=model,
        clean=clean,
        x=x,
        y=y,
        eps=eps,
        norm=norm,
        seed=seed,
        batch_size=batch_size or (_BLACK_BOX_BATCH if attack in BLACK_BOX else _BATCH),
        folder=folder,
    )
    if not isinstance(model, nn.Module):
        flags = {LABELS_ONLY} if clean.dim() == 1 else set[str]()
    elif attack == "ibp":
        return Robustness(correct, _by_bounds(model, target, correct, progress), MappingProxyType({}), ())
    else:
        flags = set(reliability(model, x[correct], y[correct], norm=norm, seed=seed))
        if not steps:
            robust, raised = _by_reference(model, target, correct, progress)
            first_success = MappingProxyType({attack: int(correct.sum() - robust.sum())})
            return Robustness(correct, robust, first_success, tuple(sorted(flags | raised)))
    found = attack_ensemble(steps, target, correct, progress)
    if attack not in BLACK_BOX and found.first_success.get("square", 0) > _MAX_BLACK_BOX * len(x):
        flags.add(BLACK_BOX_BETTER)
    return Robustness(
        correct,
        found.robust,
        MappingProxyType(found.first_success),
        tuple(sorted(flags)),
        found.queries if attack in BLACK_BOX else None,
    )


def check_black_box(attack: str, *, required: bool, max_queries: int | None) -> None:
    """Raise ConfigError if an evaluation needs gradients and there are none, or has no queries to bound.

    Args:
        attack: a name of `EVALUATIONS`.
        required: whether the target is no module, so that it shows no gradients.
        max_queries: the bound, if there is one.
    """
    if attack in BLACK_BOX:
        return
    if required:
        raise ConfigError(
            f"{attack}: needs a model's gradients; without them choose an attack by queries: {', '.join(BLACK_BOX)}"
        )
    if max_queries is not None:
        raise ConfigError(f"max_queries = {max_queries}: is for attacks by queries alone: {', '.join(BLACK_BOX)}")


def _steps(attack: str, clean: Tensor, max_queries: int | None) -> Sequence[AttackStep]:
    """Return the attacks of an evaluation that the answers allow, with their part of the queries."""
    labels_only = clean.dim() == 1
    steps = EVALUATIONS["hop-skip-jump" if attack == "black-box" and labels_only else attack]
    if labels_only and any(step.access == "scores" for step in steps):
        raise ConfigError(f"{attack}: needs scores, and the answers are labels only; choose hop-skip-jump or black-box")
    if max_queries is None:
        return steps
    part = max_queries // len(steps)
    try:
        return [step._replace(config=replace(step.config, queries=part)) for step in steps]
    except ConfigError as error:
        raise ConfigError(f"max_queries = {max_queries}: is too few for {attack}, per attack {error}") from error


def _by_reference(
    model: nn.Module, target: EvaluationTarget, correct: Tensor, progress: Callable[[float], None]
) -> tuple[Tensor, set[str]]:
    robust, flags = correct.clone(), set[str]()
    batches = _batches(target, correct)
    for number, batch in enumerate(batches, 1):
        result = reference_autoattack(
            model, target.x[batch], target.y[batch], eps=target.eps, norm=target.norm, seed=target.seed
        )
        robust[batch], flags = result.robust, flags | set(result.flags)
        progress(number / len(batches))
    return robust, flags


def _by_bounds(
    model: nn.Module, target: EvaluationTarget, correct: Tensor, progress: Callable[[float], None]
) -> Tensor:
    if target.norm != "Linf":
        raise ConfigError(f"norm = {target.norm!r}: bounds are for Linf only; attack in {target.norm} instead")
    robust = correct.clone()
    batches = _batches(target, correct)
    for number, batch in enumerate(batches, 1):
        robust[batch] = certified(model, target.x[batch], target.y[batch], target.eps)
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
