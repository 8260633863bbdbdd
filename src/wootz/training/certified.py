"""Certified training: losses that bound the worst case over the whole ball, instead of attacking it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.attacks.evasion import linear_margins, margins, record_batchnorm
from wootz.training.inner_maximization import Batch, worst_points
from wootz.training.recipe import Recipe


def ibp(
    cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Return kappa * natural + (1 - kappa) * worst case by interval bounds (Gowal et al., arXiv 1810.12715, section 3).

    While eps rises to its full size kappa falls from 1 to `cfg.kappa`. With soft targets the worst case is the mean
    over a label drawn from them; it is never less than the cross-entropy at any point of the ball.
    """
    return _certified(cfg, model, forward, batch, eps, linear=False)


def crown_ibp(
    cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Return the same with margins beta * linear + (1 - beta) * interval (Zhang et al., arXiv 1906.06316).

    While eps rises to its full size beta falls from 1 to 0: linear bounds are used during the ramp, and interval
    bounds, by which the network is certified, after it. Only the true label's margins are linear; with soft targets
    those of other labels are interval bounds throughout.
    """
    return _certified(cfg, model, forward, batch, eps, linear=True)


def mtl_ibp(
    cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Return (1 - alpha) * PGD's worst case + alpha * the worst case by interval bounds.

    The source is MTL-IBP (De Palma et al., arXiv 2305.13991, section 4.2): with a small alpha the loss trains empirical
    robustness, and the bounds limit the loss at points that the training attack does not find.
    Batch normalization bounds the ball with the statistics of PGD's points. At budget zero the loss is `natural`.
    """
    points = worst_points(cfg, model, batch, eps=eps, generator=generator)
    with record_batchnorm(model) as affine:
        attacked = F.cross_entropy(forward(points).float(), batch.targets)
    if eps == 0:
        return attacked
    with torch.autocast(batch.x.device.type, enabled=False):
        bounds = margins(model, batch.x, eps, affine=affine)
    return (1 - cfg.alpha) * attacked + cfg.alpha * worst_cross_entropy(bounds, batch.targets)


def worst_cross_entropy(bounds: Tensor, targets: Tensor) -> Tensor:
    """Return an upper bound of the mean cross-entropy, from `margins` [N, K, K] and target probabilities [N, K]."""
    return (targets * bounds.logsumexp(2)).sum(1).mean()


def _certified(cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, eps: float, *, linear: bool) -> Tensor:
    with record_batchnorm(model) as affine:
        loss = F.cross_entropy(forward(batch.x).float(), batch.targets)
    ramp = min(1.0, eps / cfg.eps)
    kappa, beta = 1 - (1 - cfg.kappa) * ramp, 1 - ramp
    if kappa == 1:
        return loss
    with torch.autocast(batch.x.device.type, enabled=False):  # bfloat16 is too coarse for the bounds
        bounds = margins(model, batch.x, eps, affine=affine)
        if linear and beta > 0:
            tighter = linear_margins(model, batch.x, batch.y, eps, affine=affine)[:, None, :]
            bounds = bounds + beta * F.one_hot(batch.y, bounds.shape[1])[:, :, None] * (tighter - bounds)
    return kappa * loss + (1 - kappa) * worst_cross_entropy(bounds, batch.targets)
