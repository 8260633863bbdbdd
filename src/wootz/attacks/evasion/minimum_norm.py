"""Fast minimum-norm attack (Pintor et al., arXiv 2102.12827): the nearest misclassified point, by gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.evasion.answers import asking, labels_of
from wootz.attacks.evasion.balls import BALLS
from wootz.attacks.evasion.objectives import margin
from wootz.errors import ConfigError
from wootz.modes import eval_mode
from wootz.types import Norm, Predict

_DUAL = {"Linf": 1, "L2": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class FMN:
    """How to close in.

    Attributes:
        eps: the furthest that a point may lie from its image, in pixels of [0, 1]; infinite by default.
        norm: in which distance is measured.
        steps: gradients an image.
        step_size: L2 length of the first step, in pixels of [0, 1]; steps shrink to a hundredth of it.
        gamma: by which share the radius first grows or shrinks after a step; at the end by 0.0001.
        stop: let an image leave as soon as a misclassified point lies within `eps`, however near others may be.
    """

    eps: float = math.inf
    norm: Norm = "Linf"
    steps: int = 1000
    step_size: float = 1.0
    gamma: float = 0.05
    stop: bool = False

    def __post_init__(self) -> None:
        if not self.eps >= 0:
            raise ConfigError(f"eps = {self.eps!r}: must be 0 or above")
        checks.one_of(("Linf", "L2"), norm=self.norm)
        checks.at_least(1, steps=self.steps)
        checks.positive(step_size=self.step_size)
        checks.inside(0, 1, gamma=self.gamma)


def fmn(cfg: FMN, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return the nearest misclassified images that were met.

    Until one is met the radius grows by `gamma` at least, not only to where the slope says that the boundary
    lies, as in the paper: at the edge of [0, 1] the slope promises more than a step can keep.

    Args:
        cfg: how to close in.
        model: images in [0, 1] -> logits; borrowed in eval mode, its gradients and mode are left as they were.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        generator: not used: the search begins at `x` and leaves nothing to chance.

    Returns:
        Images [N, C, H, W] in [0, 1]; `x` itself where nothing was met within `eps`.
    """
    if cfg.eps == 0 or len(x) == 0:
        return x.clone()
    ball = BALLS[cfg.norm]
    point, nearest = x.clone(), x.clone()
    radius, distance = torch.zeros_like(x[:, 0, 0, 0]), torch.full_like(x[:, 0, 0, 0], math.inf)
    with eval_mode(model):
        for step in range(cfg.steps):
            rows = ((distance > cfg.eps) | (not cfg.stop)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            here, base, least = point[rows], x[rows], distance[rows]
            value, gradient = _slope(model, here, y[rows])
            length, fooled = ball.length(here - base), value > 0
            nearer = fooled & (length < least)
            nearest[rows[nearer]] = here[nearer]
            least = torch.where(nearer, length, least)
            gamma = _anneal(cfg.gamma, 0.0001, step / cfg.steps)
            steepness = torch.linalg.vector_norm(gradient.flatten(1), ord=_DUAL[cfg.norm], dim=1)
            edge = length - value / steepness.clamp_min(1e-12)
            wider = radius[rows] * (1 + gamma)
            wider = torch.where(least.isinf(), torch.maximum(edge, wider), wider)
            reach = torch.where(fooled, torch.minimum(radius[rows] * (1 - gamma), least), wider)
            moved = BALLS["L2"].step(here, gradient, _anneal(cfg.step_size, cfg.step_size / 100, step / cfg.steps))
            point[rows], radius[rows], distance[rows] = ball.project(moved, base, reach), reach, least
    return torch.where((distance <= cfg.eps).view(-1, 1, 1, 1), nearest, x)


def distances(predict: Predict, points: Tensor, x: Tensor, y: Tensor, *, norm: Norm = "Linf") -> Tensor:
    """Return how far a minimum-norm attack had to go, [N]: 0 if `x` is wrong already, infinite if it found nothing."""
    with asking(predict):
        fooled = labels_of(predict(points)) != y
    return BALLS[norm].length(points - x).masked_fill(~fooled, math.inf)


def accuracy_at(distances: Tensor, eps: Sequence[float]) -> list[float]:
    """Return the robust accuracy at every budget of `eps`, a fraction, from minimum distances [N]."""
    return [(distances > budget).float().mean().item() for budget in eps]


def _slope(model: nn.Module, point: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the margin [N] and its gradient with respect to the images alone."""
    point = point.detach().requires_grad_(True)
    value = margin(model(point).float(), y)
    (gradient,) = torch.autograd.grad(value.sum(), point)
    return value.detach(), gradient


def _anneal(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
