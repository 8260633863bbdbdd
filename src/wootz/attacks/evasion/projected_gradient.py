"""Projected gradient descent (Madry et al., arXiv 1706.06083): one loop for training, triggers and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.evasion.balls import BALLS
from wootz.attacks.evasion.objectives import Objective, cross_entropy
from wootz.errors import ConfigError
from wootz.modes import eval_mode
from wootz.types import Norm

_REACH = {"Linf": 2.5, "L2": 5.0}
"""How far all steps together go by default, in radii."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PGD:
    """How to climb.

    Attributes:
        eps: radius of the ball, in pixels of [0, 1]; 0 gives the images back.
        norm: the ball's norm.
        steps: gradient steps a restart.
        step_size: length of a step; None means 2.5 * eps / steps for L-inf, which can cross the ball, and
            5 * eps / steps for L2, where steps also have to turn.
        reach: how far all steps together go where no `step_size` is given, in radii; None means 2.5, 5 for L2.
        restarts: starts an image; the best one counts.
        random_start: begin at a random point of the ball rather than at the image.
        targeted: climb towards the labels that are given rather than away from them.
        keep: the point of the highest objective (`best`), or where the last step ends (`last`, as in training).
        stop: let an image leave as soon as it is misclassified (or hits its target), as in evaluation.
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
        """The length of a step."""
        return self.step_size or (self.reach or _REACH[self.norm]) * self.eps / self.steps


def pgd(
    cfg: PGD,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    objective: Objective = cross_entropy,
) -> Tensor:
    """Return images in the ball around `x` on which `model` does badly.

    Args:
        cfg: how to climb.
        model: images in [0, 1] -> logits; borrowed in eval mode, its gradients and mode are left as they were.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N], or targets if `cfg.targeted`.
        generator: for random starts, on the device of `x`.
        objective: what to climb.

    Returns:
        Images [N, C, H, W] in [0, 1], none further than `eps` from `x` (up to float rounding).
    """
    if cfg.eps == 0 or len(x) == 0:
        return x.clone()
    with eval_mode(model):
        if cfg.keep == "last":
            return climb(cfg, model, x, y, start=_start(cfg, x, generator), objective=objective)
        best = _Best(x, stop=cfg.stop)
        for _ in range(cfg.restarts):
            _search(cfg, model, x, y, generator, objective, best)
        return best.points


def climb(
    cfg: PGD, model: nn.Module, x: Tensor, y: Tensor, *, start: Tensor, objective: Objective = cross_entropy
) -> Tensor:
    """Take every step with every image and return where it ends; nobody looks at the points on the way.

    For training, which borrows the model as it likes and may begin anywhere in the ball.

    Args:
        cfg: how to climb; one restart, to the last point.
        model: images in [0, 1] -> logits, in whatever mode it is; its parameters should be without gradient.
        x: images float32 [N, C, H, W] in [0, 1].
        y: labels int64 [N], given to the objective.
        start: where the climb begins [N, C, H, W].
        objective: what to climb.
    """
    ball, point = BALLS[cfg.norm], start
    for _ in range(cfg.steps):
        _, _, gradient = _slope(cfg, model, point, y, objective)
        point = ball.project(ball.step(point, gradient, cfg.length), x, cfg.eps)
    return point


def _search(
    cfg: PGD,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
    objective: Objective,
    best: _Best,
) -> None:
    """Climb once with the images still standing and tell `best` of every point on the way."""
    ball, active = BALLS[cfg.norm], best.standing.nonzero().squeeze(1)
    base, label = x[active], y[active]
    point = _start(cfg, base, generator)
    for _ in range(cfg.steps):
        if len(active) == 0:
            return
        logits, value, gradient = _slope(cfg, model, point, label, objective)
        stay = best.note(active, point, value, (logits.argmax(1) == label) == cfg.targeted)
        if not stay.all():
            active, base, label, point, gradient = (t[stay] for t in (active, base, label, point, gradient))
        point = ball.project(ball.step(point, gradient, cfg.length), base, cfg.eps)
    with torch.no_grad():
        logits = model(point).float()
        value = objective(logits, label) * (-1 if cfg.targeted else 1)
        best.note(active, point, value, (logits.argmax(1) == label) == cfg.targeted)


def _start(cfg: PGD, x: Tensor, generator: torch.Generator) -> Tensor:
    return BALLS[cfg.norm].start(x, cfg.eps, generator) if cfg.random_start else x.clone()


def _slope(cfg: PGD, model: nn.Module, point: Tensor, y: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, the value to climb [N], and its gradient with respect to the images alone."""
    point = point.detach().requires_grad_(True)
    logits = model(point).float()
    value = -objective(logits, y) if cfg.targeted else objective(logits, y)
    (gradient,) = torch.autograd.grad(value.sum(), point)
    return logits.detach(), value.detach(), gradient


class _Best:
    """The best point of every image so far: fooled beats not fooled, then the higher objective."""

    def __init__(self, x: Tensor, *, stop: bool) -> None:
        self.points = x.clone()
        self.standing = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self._height = torch.full((len(x),), float("-inf"), device=x.device)
        self._fooled = torch.zeros_like(self.standing)
        self._stop = stop

    def note(self, active: Tensor, point: Tensor, value: Tensor, fooled: Tensor) -> Tensor:
        """Take in one point for each active image; return which of them stay in the climb."""
        known, height = self._fooled[active], self._height[active]
        better = (fooled & ~known) | ((fooled == known) & (value > height))
        rows = active[better]
        self.points[rows], self._height[rows] = point[better], value[better]
        self._fooled[rows] |= fooled[better]
        if not self._stop:
            return torch.ones_like(fooled)
        self.standing[active[fooled]] = False
        return ~fooled
