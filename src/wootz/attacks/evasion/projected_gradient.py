"""Projected gradient descent, PGD (Madry et al., arXiv 1706.06083), for training, triggers and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.evasion.balls import BALLS, check_ball
from wootz.attacks.evasion.objectives import Objective, cross_entropy
from wootz.errors import ConfigError
from wootz.modes import eval_mode
from wootz.types import Norm

_TRAVEL = {"Linf": 2.5, "L2": 5.0}
"""The default sum of the lengths of all steps, in radii."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PGD:
    """Settings of the attack.

    Attributes:
        eps: the radius of the ball, in pixels of [0, 1]; 0 returns the images unchanged.
        norm: the norm of the ball.
        steps: the number of gradient steps per restart.
        step_size: the length of a step, in pixels of [0, 1]; None means `reach * eps / steps`.
        reach: the sum of the lengths of all steps without a `step_size`, in radii; None means 2.5 for L-inf, enough to
            cross the ball, and 5 for L2, whose steps also have to change direction.
        restarts: the number of runs per image; the best one counts.
        random_start: whether a run starts at a random point of the ball rather than at the image.
        targeted: whether labels are targets: the objective is minimized instead of maximized.
        keep: whether the result is the point of the best objective (`best`) or of the last step (`last`, as in
            training).
        stop: whether an image stops once it is misclassified (or reaches its target), as in evaluation.
    """

    eps: float
    norm: Norm = "Linf"
    steps: int = 40
    step_size: float | None = None
    reach: float | None = None
    restarts: int = 1
    random_start: bool = True
    targeted: bool = False
    keep: Literal["best", "last"] = "best"
    stop: bool = False

    def __post_init__(self) -> None:
        checks.not_negative(eps=self.eps)
        checks.one_of(("Linf", "L2"), norm=self.norm)
        checks.at_least(1, steps=self.steps, restarts=self.restarts)
        for name, value in {"step_size": self.step_size, "reach": self.reach}.items():
            if value is not None:
                checks.positive(**{name: value})
        if self.keep == "last" and (self.restarts > 1 or self.stop):
            raise ConfigError("keep = 'last': one restart and no stop; use keep = 'best' to compare points")

    @property
    def length(self) -> float:
        """The length of a step, in pixels of [0, 1]."""
        return self.step_size or (self.reach or _TRAVEL[self.norm]) * self.eps / self.steps


def pgd(
    cfg: PGD,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    objective: Objective = cross_entropy,
) -> Tensor:
    """Return images in the ball around `x` at which the objective is high (low for targets).

    Args:
        cfg: the settings.
        model: images in [0, 1] -> logits; used in eval mode, its gradients and mode are restored.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N], or targets if `cfg.targeted`.
        generator: the generator of random starts, on the device of `x`.
        objective: the function to maximize.

    Returns:
        Images [N, C, H, W] in [0, 1], none farther than `eps` from `x` (up to float rounding).
    """
    check_ball(x, cfg.eps, cfg.norm)
    if cfg.eps == 0 or len(x) == 0:
        return x.clone()
    with eval_mode(model):
        if cfg.keep == "last":
            return run_pgd(cfg, model, x, y, start=_start(cfg, x, generator), objective=objective)
        best = _Best(x, stop=cfg.stop)
        for _ in range(cfg.restarts):
            _run_once(cfg, model, x, y, generator, objective, best)
        return best.points


def run_pgd(
    cfg: PGD, model: nn.Module, x: Tensor, y: Tensor, *, start: Tensor, objective: Objective = cross_entropy
) -> Tensor:
    """Return the points [N, C, H, W] after all steps from `start`, without comparing points on the way.

    For training, which sets the model's mode itself and may start anywhere in the ball.

    Args:
        cfg: the settings; restarts, `keep` and `stop` have no effect.
        model: images in [0, 1] -> logits, in its current mode; its parameters should not require gradients.
        x: images float32 [N, C, H, W] in [0, 1].
        y: labels int64 [N], passed to the objective.
        start: the points to start from, [N, C, H, W].
        objective: the function to maximize.
    """
    ball, point = BALLS[cfg.norm], start
    for _ in range(cfg.steps):
        _, _, gradient = _evaluate_objective(cfg, model, point, y, objective)
        point = ball.project(ball.step(point, gradient, cfg.length), x, cfg.eps)
    return point


def _run_once(
    cfg: PGD,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
    objective: Objective,
    best: _Best,
) -> None:
    """Run PGD once on the images that are still robust and update `best` with every point on the way."""
    ball, active = BALLS[cfg.norm], best.robust.nonzero().squeeze(1)
    base, label = x[active], y[active]
    point = _start(cfg, base, generator)
    for _ in range(cfg.steps):
        if len(active) == 0:
            return
        logits, value, gradient = _evaluate_objective(cfg, model, point, label, objective)
        remaining = best.update(active, point, value, (logits.argmax(1) == label) == cfg.targeted)
        if not remaining.all():
            active, base, label, point, gradient = (t[remaining] for t in (active, base, label, point, gradient))
        point = ball.project(ball.step(point, gradient, cfg.length), base, cfg.eps)
    with torch.no_grad():
        logits = model(point).float()
        value = objective(logits, label) * (-1 if cfg.targeted else 1)
        best.update(active, point, value, (logits.argmax(1) == label) == cfg.targeted)


def _start(cfg: PGD, x: Tensor, generator: torch.Generator) -> Tensor:
    return BALLS[cfg.norm].start(x, cfg.eps, generator) if cfg.random_start else x.clone()


def _evaluate_objective(
    cfg: PGD, model: nn.Module, point: Tensor, y: Tensor, objective: Objective
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits [N, K], the value to maximize [N], and its gradient with respect to the images alone."""
    point = point.detach().requires_grad_(True)
    logits = model(point).float()
    value = -objective(logits, y) if cfg.targeted else objective(logits, y)
    (gradient,) = torch.autograd.grad(value.sum(), point)
    return logits.detach(), value.detach(), gradient


class _Best:
    """The best point of every image so far: misclassified points first, then by the higher objective."""

    def __init__(self, x: Tensor, *, stop: bool) -> None:
        self.points = x.clone()
        self.robust = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self._value = torch.full((len(x),), float("-inf"), device=x.device)
        self._misclassified = torch.zeros_like(self.robust)
        self._stop = stop

    def update(self, active: Tensor, point: Tensor, value: Tensor, misclassified: Tensor) -> Tensor:
        """Consider one point per active image; return which of the images remain active, bool [n]."""
        previously, best_value = self._misclassified[active], self._value[active]
        better = (misclassified & ~previously) | ((misclassified == previously) & (value > best_value))
        rows = active[better]
        self.points[rows], self._value[rows] = point[better], value[better]
        self._misclassified[rows] |= misclassified[better]
        if not self._stop:
            return torch.ones_like(misclassified)
        self.robust[active[misclassified]] = False
        return ~misclassified
