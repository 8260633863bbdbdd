"""What a training loss is, and the three plain ones: `(cfg, model, forward, batch, *, eps, generator) -> scalar`.

Attacks run on the raw `model`, in eval mode unless the recipe says otherwise; only the outer pass goes through
`forward`, the module that averages gradients over processes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.attacks.evasion import BALLS, PGD, cross_entropy, run_pgd
from wootz.modes import eval_mode, without_gradients
from wootz.training.recipe import Recipe
from wootz.training.weight_perturbation import uphill


class Batch(NamedTuple):
    """Images [N, C, H, W], true labels [N] that attacks push away from, and target probabilities [N, K]."""

    x: Tensor
    y: Tensor
    targets: Tensor


Forward: TypeAlias = Callable[[Tensor], Tensor]
Loss: TypeAlias = Callable[..., Tensor]


def natural(
    cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Cross-entropy on the images as they are."""
    return F.cross_entropy(forward(batch.x).float(), batch.targets)


def pgd_adversarial(
    cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Cross-entropy on the last point of PGD-k (Madry et al., arXiv 1706.06083, eq. 2.1)."""
    points = worst_points(cfg, model, batch, eps=eps, generator=generator)
    return uphill(cfg, model, forward, lambda net: F.cross_entropy(net(points).float(), batch.targets))


def noise_fgsm(
    cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Cross-entropy after one step from strong noise, not clipped to the ball (de Jorge et al., arXiv 2202.01181).

    Noise uniform in +-2 eps and a step of eps, as in the paper; for L2 the noise comes from the ball of 2 eps.
    """
    if eps == 0:
        return natural(cfg, model, forward, batch, eps=eps, generator=generator)
    ball = BALLS[cfg.norm]
    with attack_mode(cfg, model):
        noisy = ball.start(batch.x, 2 * eps, generator).requires_grad_(True)
        (gradient,) = torch.autograd.grad(cross_entropy(model(noisy).float(), batch.y).sum(), noisy)
        points = ball.step(noisy.detach(), gradient, eps * (cfg.step_size or 1.0)).clamp_(0, 1)
    return F.cross_entropy(forward(points).float(), batch.targets)


def worst_points(cfg: Recipe, model: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator) -> Tensor:
    """Return the last points of PGD-k on cross-entropy, from a random start; the images themselves at no budget."""
    attack = inner_attack(cfg, eps)
    if attack is None:
        return batch.x
    with attack_mode(cfg, model):
        return run_pgd(attack, model, batch.x, batch.y, start=BALLS[cfg.norm].start(batch.x, eps, generator))


def inner_attack(cfg: Recipe, eps: float) -> PGD | None:
    """Return the attack that a batch is met with; None where the budget leaves nothing to climb."""
    size = eps * (cfg.step_size or 2.5 / cfg.steps)
    return PGD(eps=eps, norm=cfg.norm, steps=cfg.steps, step_size=size, keep="last") if size > 0 else None


def attack_mode(cfg: Recipe, model: nn.Module) -> AbstractContextManager[nn.Module]:
    """Borrow the model for an attack, in the mode that the recipe asks for."""
    return eval_mode(model) if cfg.attack_mode == "eval" else without_gradients(model)
