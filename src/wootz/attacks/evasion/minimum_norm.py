"""Fast minimum-norm attack, FMN (Pintor et al., arXiv 2102.12827): the nearest misclassified point, by gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.evasion.balls import BALLS, check_images
from wootz.attacks.evasion.black_box import misclassified, query_mode
from wootz.attacks.evasion.objectives import margin
from wootz.errors import ConfigError
from wootz.modes import eval_mode
from wootz.types import Norm, Predict

_DUAL = {"Linf": 1, "L2": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class FMN:
    """Settings of the attack.

    Attributes:
        eps: the largest distance of a point from its image, in pixels of [0, 1]; infinite by default.
        norm: the norm of the distance.
        steps: the number of gradient steps per image.
        step_size: the L2 length of the first step, in pixels of [0, 1]; steps shrink to a hundredth of it.
        gamma: the relative change of the radius after the first step; it shrinks to 0.0001.
        stop: whether an image stops once a misclassified point lies within `eps`, even if nearer ones may exist.
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
    """Return the nearest misclassified points found.

    Until the first one, the radius grows at least by `gamma`; in the paper it grows to the linear estimate of the
    boundary alone, which is too small at the edge of [0, 1], where steps are clipped.

    Args:
        cfg: the settings.
        model: images in [0, 1] -> logits; used in eval mode, its gradients and mode are restored.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        generator: not used; the search starts at `x` and is deterministic.

    Returns:
        Images [N, C, H, W] in [0, 1]; `x` itself if no misclassified point was found within `eps`.
    """
    check_images(x)
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
            candidate, base, smallest = point[rows], x[rows], distance[rows]
            value, gradient = _margin_gradient(model, candidate, y[rows])
            length, wrong = ball.length(candidate - base), value > 0
            nearer = wrong & (length < smallest)
            nearest[rows[nearer]] = candidate[nearer]
            smallest = torch.where(nearer, length, smallest)
            gamma = _anneal(cfg.gamma, 0.0001, step / cfg.steps)
            gradient_norm = torch.linalg.vector_norm(gradient.flatten(1), ord=_DUAL[cfg.norm], dim=1)
            boundary = length - value / gradient_norm.clamp_min(1e-12)
            wider = radius[rows] * (1 + gamma)
            wider = torch.where(smallest.isinf(), torch.maximum(boundary, wider), wider)
            new_radius = torch.where(wrong, torch.minimum(radius[rows] * (1 - gamma), smallest), wider)
            moved = BALLS["L2"].step(candidate, gradient, _anneal(cfg.step_size, cfg.step_size / 100, step / cfg.steps))
            point[rows] = ball.project(moved, base, new_radius)
            radius[rows], distance[rows] = new_radius, smallest
    return torch.where((distance <= cfg.eps).view(-1, 1, 1, 1), nearest, x)


def distances(predict: Predict, points: Tensor, x: Tensor, y: Tensor, *, norm: Norm = "Linf") -> Tensor:
    """Return the distances [N] of the points of a minimum-norm attack.

    0 for images that are misclassified themselves, infinite where the attack found no misclassified point.
    """
    with query_mode(predict, len(points)) as ask:
        found = misclassified(ask(points), y)
    return BALLS[norm].length(points - x).masked_fill(~found, math.inf)


def accuracy_at(distances: Tensor, eps: Sequence[float]) -> list[float]:
    """Return the robust accuracy at every budget of `eps`, as fractions, from minimum distances [N]."""
    return [(distances > budget).float().mean().item() for budget in eps]


def _margin_gradient(model: nn.Module, point: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the margin [N] and its gradient with respect to the images alone."""
    point = point.detach().requires_grad_(True)
    value = margin(model(point).float(), y)
    (gradient,) = torch.autograd.grad(value.sum(), point)
    return value.detach(), gradient


def _anneal(first: float, last: float, fraction: float) -> float:
    """Return the value of a half cosine from `first` to `last` at `fraction` of its length."""
    return last + (first - last) * (1 + math.cos(math.pi * fraction)) / 2
