"""Training losses: `(cfg, model, forward, batch, *, eps, generator) -> scalar`.

Attacks run on the raw `model` in eval mode; only the outer pass goes through `forward`, the module that
averages gradients over processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.evasion import BALLS, PGD, cross_entropy, pgd
from wootz.modes import evaluating
from wootz.training.recipe import Recipe


class Batch(NamedTuple):
    """Images [N, C, H, W], true labels [N] that attacks push away from, and target probabilities [N, K]."""

    x: Tensor
    y: Tensor
    targets: Tensor


Forward: TypeAlias = Callable[[Tensor], Tensor]
Loss: TypeAlias = Callable[..., Tensor]


def natural(
    cfg: Recipe, model: nn.Module, forward: Forward, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Cross-entropy on the images as they are."""
    return F.cross_entropy(forward(batch.x).float(), batch.targets)


def pgd_adversarial(
    cfg: Recipe, model: nn.Module, forward: Forward, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Cross-entropy on the last point of PGD-k (Madry et al., arXiv 1706.06083, eq. 2.1)."""
    size = eps * (cfg.step_size or 2.5 / cfg.steps)
    if size > 0:
        attack = PGD(eps=eps, norm=cfg.norm, steps=cfg.steps, step_size=size, keep="last")
        return F.cross_entropy(
            forward(pgd(attack, model, batch.x, batch.y, generator=generator)).float(), batch.targets
        )
    return natural(cfg, model, forward, batch, eps=eps, generator=generator)


def noise_fgsm(
    cfg: Recipe, model: nn.Module, forward: Forward, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Cross-entropy after one step from strong noise, not clipped to the ball (de Jorge et al., arXiv 2202.01181).

    Noise uniform in +-2 eps and a step of eps, as in the paper; for L2 the noise comes from the ball of 2 eps.
    """
    if eps == 0:
        return natural(cfg, model, forward, batch, eps=eps, generator=generator)
    ball = BALLS[cfg.norm]
    with evaluating(model):
        noisy = ball.start(batch.x, 2 * eps, generator).requires_grad_(True)
        (gradient,) = torch.autograd.grad(cross_entropy(model(noisy).float(), batch.y).sum(), noisy)
        points = ball.step(noisy.detach(), gradient, eps * (cfg.step_size or 1.0)).clamp_(0, 1)
    return F.cross_entropy(forward(points).float(), batch.targets)


LOSSES: Mapping[str, Loss] = MappingProxyType({"natural": natural, "pgd-at": pgd_adversarial, "n-fgsm": noise_fgsm})
