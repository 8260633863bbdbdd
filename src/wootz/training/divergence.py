"""Losses that keep the answers of an image and of its worst neighbor together: TRADES and MART."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.attacks.evasion import BALLS, run_pgd
from wootz.training.losses import Batch, Forward, attack_mode, inner_attack, worst_points
from wootz.training.recipe import Recipe
from wootz.training.weight_perturbation import uphill

_NOISE = 1e-3  # the divergence has no slope at the image itself


def trades(
    cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Cross-entropy on the images + weight * KL(p(x) || p(x')) (Zhang et al., arXiv 1901.08573, eq. 5).

    x' climbs the divergence itself, from x + 0.001 * Gaussian noise. The second term asks for no label, so soft
    targets enter the first one only. With no budget both points are one, and the loss is `natural`.
    """
    weight = 6.0 if cfg.robust_weight is None else cfg.robust_weight
    points = _diverging(cfg, model, batch, eps, generator)

    def value(net: Forward) -> Tensor:
        logits = net(batch.x).float()
        loss = F.cross_entropy(logits, batch.targets)
        return loss if points is None else loss + weight * divergence(logits, net(points).float()).mean()

    return uphill(cfg, model, forward, value)


def mart(
    cfg: Recipe, model: nn.Module, forward: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Boosted cross-entropy on x' + weight * KL(p(x) || p(x')) * (1 - p_y(x)) (Wang et al., ICLR 2020, eq. 11).

    x' is PGD's last point on cross-entropy. The paper's formula is for one label; with soft targets both places
    where it occurs become means over a label drawn from them: sum_k t_k * BCE(x', k) and 1 - sum_k t_k * p_k(x).
    With no budget the boosted cross-entropy on the images remains.
    """
    weight = 5.0 if cfg.robust_weight is None else cfg.robust_weight
    points = worst_points(cfg, model, batch, eps=eps, generator=generator)

    def value(net: Forward) -> Tensor:
        logits, worst = net(batch.x).float(), net(points).float()
        doubt = 1 - (batch.targets * logits.softmax(1)).sum(1)
        return (boosted_cross_entropy(worst, batch.targets) + weight * doubt * divergence(logits, worst)).mean()

    return uphill(cfg, model, forward, value)


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """Return KL(p || q) in nats [N], p and q being what two batches of logits [N, K] say."""
    return F.kl_div(others.log_softmax(1), logits.log_softmax(1), reduction="none", log_target=True).sum(1)


def boosted_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return sum_k t_k * (-log p_k - log(1 - max of p_j over j != k)), in nats [N]."""
    first, second = logits.topk(2, dim=1).indices.unbind(1)
    spread = logits.logsumexp(1, keepdim=True)
    rest = [logits.scatter(1, top[:, None], float("-inf")).logsumexp(1, keepdim=True) for top in (first, second)]
    is_first = F.one_hot(first, logits.shape[1]).bool()
    beside = torch.where(is_first, rest[1], rest[0]) - spread
    return -(targets * (logits - spread + beside)).sum(1)


def _diverging(cfg: Recipe, model: nn.Module, batch: Batch, eps: float, generator: torch.Generator) -> Tensor | None:
    """Return points in the ball that are answered otherwise than their images; None at no budget."""
    attack = inner_attack(cfg, eps)
    if attack is None:
        return None
    noise = torch.randn(batch.x.shape, generator=generator, device=batch.x.device, dtype=batch.x.dtype)
    start = BALLS[cfg.norm].project(batch.x + _NOISE * noise, batch.x, eps)
    with attack_mode(cfg, model):
        with torch.no_grad():
            logits = model(batch.x).float()
        return run_pgd(
            attack, model, batch.x, batch.y, start=start, objective=lambda others, _: divergence(logits, others)
        )
