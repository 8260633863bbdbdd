"""The training losses by name, each `(cfg, model, forward, batch, *, eps, generator) -> scalar`.

Attacks run on the raw `model`; the outer pass goes through `forward`, the wrapped module that averages gradients over
processes. `certified` holds the losses by bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.attacks.evasion import BALLS, cross_entropy
from wootz.training.certified import crown_ibp, ibp, mtl_ibp
from wootz.training.inner_maximization import (
    Batch,
    Forward,
    attack_mode,
    kl_divergence,
    most_divergent_points,
    with_perturbed_weights,
    worst_points,
)
from wootz.training.recipe import Recipe

Loss: TypeAlias = Callable[..., Tensor]


def natural(
    cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Cross-entropy on the unperturbed images."""
    return F.cross_entropy(forward(batch.x).float(), batch.targets)


def pgd_adversarial(
    cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Cross-entropy on the last point of PGD-k (Madry et al., arXiv 1706.06083, eq. 2.1)."""
    points = worst_points(cfg, model, batch, eps=eps, generator=generator)
    return with_perturbed_weights(cfg, model, forward, lambda net: F.cross_entropy(net(points).float(), batch.targets))


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


def trades(
    cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Cross-entropy on the images + weight * KL(p(x) || p(x')) (Zhang et al., arXiv 1901.08573, eq. 5).

    x' maximizes the divergence itself, from x + 0.001 * Gaussian noise. The second term uses no label, so soft
    targets enter only the first one. At budget zero x' = x, and the loss is `natural`.
    """
    weight = 6.0 if cfg.robust_weight is None else cfg.robust_weight
    points = most_divergent_points(cfg, model, batch, eps=eps, generator=generator)

    def value(net: Forward) -> Tensor:
        logits = net(batch.x).float()
        loss = F.cross_entropy(logits, batch.targets)
        return loss if points is None else loss + weight * kl_divergence(logits, net(points).float()).mean()

    return with_perturbed_weights(cfg, model, forward, value)


def mart(
    cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Boosted cross-entropy on x' + weight * KL(p(x) || p(x')) * (1 - p_y(x)) (Wang et al., ICLR 2020, eq. 11).

    x' is PGD's last point on cross-entropy. The paper's formula is for one label; with soft targets both of its terms
    in y become means over a label drawn from them: sum_k t_k * BCE(x', k) and 1 - sum_k t_k * p_k(x). At budget zero
    the boosted cross-entropy on the images remains.
    """
    weight = 5.0 if cfg.robust_weight is None else cfg.robust_weight
    points = worst_points(cfg, model, batch, eps=eps, generator=generator)

    def value(net: Forward) -> Tensor:
        clean, worst = net(batch.x).float(), net(points).float()
        uncertainty = 1 - (batch.targets * clean.softmax(1)).sum(1)
        boosted = boosted_cross_entropy(worst, batch.targets)
        return (boosted + weight * uncertainty * kl_divergence(clean, worst)).mean()

    return with_perturbed_weights(cfg, model, forward, value)


def boosted_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return sum_k t_k * (-log p_k - log(1 - max of p_j over j != k)), in nats [N]."""
    first, second = logits.topk(2, dim=1).indices.unbind(1)
    total = logits.logsumexp(1, keepdim=True)
    rest = [logits.scatter(1, top[:, None], float("-inf")).logsumexp(1, keepdim=True) for top in (first, second)]
    is_first = F.one_hot(first, logits.shape[1]).bool()
    log_not_rival = torch.where(is_first, rest[1], rest[0]) - total
    return -(targets * (logits - total + log_not_rival)).sum(1)


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "natural": natural,
        "pgd-at": pgd_adversarial,
        "n-fgsm": noise_fgsm,
        "trades": trades,
        "mart": mart,
        "ibp": ibp,
        "crown-ibp": crown_ibp,
        "mtl-ibp": mtl_ibp,
    }
)
