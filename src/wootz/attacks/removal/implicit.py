"""I-BAU (Zeng et al., arXiv 2110.03735): unlearn the worst universal perturbation, and how it would answer.

A minimax game: a perturbation of bounded length, the same for all images, climbs the loss; the weights descend it.
The weights' gradient takes into account that the perturbation depends on them (the implicit hypergradient), by a few
fixed-point iterations of one step of gradient ascent. We find a perturbation for every batch and add the clean loss.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.adversary import AttackContext, AttackDataConfig, State, packed, rounds, unpacked
from wootz.data import epoch_batches
from wootz.rng import derive


@dataclass(frozen=True, slots=True, kw_only=True)
class Implicit(AttackDataConfig):
    """How the game is played.

    Attributes:
        epochs: passes over the data.
        batch_size: images that share a perturbation.
        radius: greatest L2 length of a perturbation, in pixels of [0, 1].
        steps: of ascent to find it, each of a length of 2 * radius / steps.
        ascent: step size of the ascent step whose fixed point the perturbation is taken for.
        decay: what keeps that fixed point from running away: minus decay / 2 times the squared length.
        terms: fixed-point iterations; 0 leaves the implicit term out.
        lr: of Adam on the weights.
    """

    epochs: int = 20
    batch_size: int = 64
    radius: float = 6.0
    steps: int = 5
    ascent: float = 0.1
    decay: float = 0.002
    terms: int = 5
    lr: float = 2e-3

    def __post_init__(self) -> None:
        AttackDataConfig.__post_init__(self)
        checks.at_least(1, epochs=self.epochs, batch_size=self.batch_size, steps=self.steps)
        checks.at_least(0, terms=self.terms)
        checks.positive(radius=self.radius, ascent=self.ascent, lr=self.lr)
        checks.not_negative(decay=self.decay)


def ibau(cfg: Implicit, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` that has unlearned universal perturbations."""
    device = context.execution.accelerator
    net = copy.deepcopy(model).to(device).eval()
    parameters = [parameter.requires_grad_(True) for parameter in net.parameters()]

    def epoch(number: int, state: State) -> State:
        unpacked(net, state)
        adam = torch.optim.Adam(parameters, lr=cfg.lr)  # a new one each epoch: an attempt goes on exactly
        for rows in epoch_batches(len(context.data), cfg.batch_size, seed=derive(context.seed, "rows"), epoch=number):
            x, y = context.data.subset(rows).images().to(device), context.data.labels[rows].to(device)
            for parameter, slope in zip(parameters, hypergradient(cfg, net, parameters, x, y), strict=True):
                parameter.grad = slope
            adam.step()
        return packed(net)

    unpacked(net, rounds(context, "unlearning", cfg.epochs, lambda: packed(net), epoch))
    net.zero_grad()
    return net.cpu()


def universal(cfg: Implicit, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return a perturbation [1, C, H, W] on which `net` does badly for all images at once."""
    delta = torch.zeros_like(x[:1])
    for _ in range(cfg.steps):
        delta.requires_grad_(True)
        (slope,) = torch.autograd.grad(_loss(net, x, y, delta), delta)
        delta = delta.detach() + 2 * cfg.radius / cfg.steps * slope / slope.norm().clamp_min(1e-12)
        delta = delta * (cfg.radius / delta.norm().clamp_min(1e-12)).clamp_max(1)
    return delta


def hypergradient(
    cfg: Implicit, net: nn.Module, parameters: Sequence[Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradient of the loss at the worst perturbation with respect to the parameters, which move it too."""
    delta = universal(cfg, net, x, y).requires_grad_(True)
    height = _loss(net, x, y, delta)
    (uphill,) = torch.autograd.grad(height - cfg.decay / 2 * delta.square().sum(), delta, create_graph=True)
    following = delta + cfg.ascent * uphill
    outer = height + F.cross_entropy(net(x), y)
    direct = torch.autograd.grad(outer, [delta, *parameters], retain_graph=True)
    along = direct[0]
    for _ in range(cfg.terms):
        along = torch.autograd.grad(following, delta, along, retain_graph=True)[0] + direct[0]
    if not cfg.terms:
        return direct[1:]
    implicit = torch.autograd.grad(following, parameters, along, allow_unused=True)
    return tuple(one if other is None else one + other for one, other in zip(direct[1:], implicit, strict=True))


def _loss(net: nn.Module, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
    return F.cross_entropy(net((x + delta).clamp(0, 1)), y)
