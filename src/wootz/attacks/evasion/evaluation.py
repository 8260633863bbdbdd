"""Clean and robust accuracy, in float32, with the flags that say how far to trust them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wootz.attacks.evasion.auto_pgd import APGD
from wootz.attacks.evasion.autoattack import reference_autoattack
from wootz.attacks.evasion.bounds import certified
from wootz.attacks.evasion.projected_gradient import PGD, pgd
from wootz.attacks.evasion.reliability import BLACK_BOX_BETTER, reliability
from wootz.attacks.evasion.square import Square
from wootz.attacks.evasion.table import ATTACKS
from wootz.attacks.evasion.worst_case import Step, Trial, worst_case
from wootz.errors import ConfigError
from wootz.modes import device_of, eval_mode
from wootz.registry import lookup
from wootz.rng import generator
from wootz.types import Norm


def _t(targets: int, share: float) -> Step:
    return Step(f"apgd-t-{targets}", "apgd-t", APGD(eps=0, loss="targeted-dlr", targets=targets), nearest=share)


_FIRST = (Step("pgd-20", "pgd", PGD(eps=0, steps=20, stop=True)), Step("apgd-ce", "apgd-ce", APGD(eps=0)), _t(3, 1))

EVALUATIONS: Mapping[str, tuple[Step, ...]] = MappingProxyType(
    {
        "pgd-40x2": (Step("pgd-40x2", "pgd", PGD(eps=0, steps=40, restarts=2, stop=True)),),
        "pgd-50x10": (Step("pgd-50x10", "pgd", PGD(eps=0, steps=50, restarts=10, stop=True)),),
        "ensemble": (*_FIRST, _t(9, 0.2), Step("square", "square", Square(eps=0, queries=1500))),
        "ensemble-long": (*_FIRST, _t(9, 0.5), Step("square", "square", Square(eps=0))),
        "pgd-25": (Step("pgd-25", "pgd", PGD(eps=0, steps=25, reach=1.0, keep="last")),),
        "autoattack": (),
        "ibp": (),
    }
    | {name: (Step(name, name, row.config),) for name, row in ATTACKS.items() if name != "pgd"}
)
"""Named evaluations, and every attack alone; the budget is filled in by the caller.

`ensemble` tries what is cheap first, then what is targeted, with most effort on the images that are nearest to
falling, and a black box last, which sees behind masked gradients. Its effort is matched to `autoattack`, the
reference ensemble, so that figures compare: on held-out images 1,500 queries of our Square, which never asks twice
about the same point, do a little more than the reference's 5,000 (docs/results/attacks.md). `ensemble-long` spends
5,000 as well, and may find more than the reference. `pgd-25` is the founding paper's own figure, there to compare with
and weak: its training attack, 25 steps of 0.04 eps from one random start, judged where the last step ends.

All of these bound robust accuracy from above. `ibp` bounds it from below: it attacks nothing and counts the images
whose whole L-inf ball is certified by interval bounds.
"""

_NOTICED = 0.005  # the share of images that a black box may find beyond all gradients without comment


class Robustness(NamedTuple):
    """What an evaluation found.

    Attributes:
        correct: which images are answered right, [N] bool.
        robust: which of them at every point tried (at every point of the ball, for `ibp`), [N] bool.
        fallen: attack -> how many images it was the first to fell; a certificate fells none.
        flags: why the figure may be too high; none is good.
    """

    correct: Tensor
    robust: Tensor
    fallen: Mapping[str, int]
    flags: tuple[str, ...]

    @property
    def clean(self) -> float:
        """Clean accuracy, a fraction."""
        return self.correct.float().mean().item()

    @property
    def accuracy(self) -> float:
        """Robust accuracy, a fraction: worst case over all restarts and attacks of each image, or what is certified."""
        return self.robust.float().mean().item()


def predict_logits(model: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """Return logits float32 [N, K] of images [N, C, H, W], in eval mode and without gradients, where the images are."""
    device = device_of(model)
    with eval_mode(model), torch.no_grad():
        return torch.cat([model(batch.to(device)).float().to(x.device) for batch in x.split(batch_size)])


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    attack: str = "pgd-40x2",
    norm: Norm = "Linf",
    seed: int = 0,
    batch_size: int = 500,
    folder: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Robustness:
    """Attack the images that are answered right and count those that stand.

    Args:
        model: images in [0, 1] -> logits.
        x: images float32 [N, C, H, W] in [0, 1], on the model's device.
        y: true labels int64 [N], there too.
        eps: budget, in pixels of [0, 1].
        attack: a name of `EVALUATIONS`.
        norm: of the ball.
        seed: of the attacks' randomness.
        batch_size: images attacked at a time.
        folder: where an evaluation that is cut off leaves what it found; the same one goes on from there.
        progress: told the fraction done, 0 to 1.

    Raises:
        ConfigError: an evaluation that is not known, or `ibp` in another norm than Linf.
        ModelError: `ibp`, and a layer has no bounds.
    """
    steps = lookup(EVALUATIONS, attack, "evaluation")
    correct = predict_logits(model, x).argmax(1) == y
    trial = Trial(model=model, x=x, y=y, eps=eps, norm=norm, seed=seed, batch_size=batch_size, folder=folder)
    if attack == "ibp":
        return Robustness(correct, _by_bounds(trial, correct, progress), MappingProxyType({}), ())
    flags = set(reliability(model, x[correct], y[correct], norm=norm, seed=seed))
    if steps:
        robust, fallen = worst_case(steps, trial, correct, progress)
        if fallen.get("square", 0) > _NOTICED * len(x):
            flags.add(BLACK_BOX_BETTER)
    else:
        robust, raised = _by_reference(trial, correct, progress)
        fallen, flags = {attack: int(correct.sum() - robust.sum())}, flags | raised
    return Robustness(correct, robust, MappingProxyType(fallen), tuple(sorted(flags)))


def _by_reference(trial: Trial, correct: Tensor, progress: Callable[[float], None]) -> tuple[Tensor, set[str]]:
    robust, flags = correct.clone(), set[str]()
    rows = correct.nonzero().squeeze(1)
    for number, part in enumerate(rows.split(trial.batch_size), 1):
        found = reference_autoattack(
            trial.model, trial.x[part], trial.y[part], eps=trial.eps, norm=trial.norm, seed=trial.seed
        )
        robust[part], flags = found.robust, flags | set(found.flags)
        progress(min(1.0, number * trial.batch_size / len(rows)))
    return robust, flags


def _by_bounds(trial: Trial, correct: Tensor, progress: Callable[[float], None]) -> Tensor:
    if trial.norm != "Linf":
        raise ConfigError(f"norm = {trial.norm!r}: bounds are for Linf only; attack in {trial.norm} instead")
    robust = correct.clone()
    rows = correct.nonzero().squeeze(1)
    for number, part in enumerate(rows.split(trial.batch_size), 1):
        robust[part] = certified(trial.model, trial.x[part], trial.y[part], trial.eps)
        progress(min(1.0, number * trial.batch_size / len(rows)))
    return robust


def accuracy_curve(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: Sequence[float], norm: Norm = "Linf", seed: int = 0
) -> list[float]:
    """Return robust accuracy (PGD-20, one restart) at each budget of `eps`, for a picture of how it falls."""
    right = predict_logits(model, x).argmax(1) == y
    curve = []
    for budget in eps:
        cfg = PGD(eps=budget, norm=norm, steps=20, stop=True)
        points = pgd(cfg, model, x, y, generator=generator(seed, "curve", device=x.device))
        right = right & (predict_logits(model, points).argmax(1) == y)
        curve.append(right.float().mean().item())
    return curve
