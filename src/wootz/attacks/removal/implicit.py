"""I-BAU (Zeng et al., arXiv 2110.03735): unlearning of universal perturbations by implicit hypergradients.

A minimax problem: a perturbation of bounded norm, the same for all images, maximizes the loss, and the weights minimize
it. The gradient of the weights includes the dependence of the perturbation on them (the implicit hypergradient), by a
few fixed-point iterations of one step of gradient ascent. Unlike the source, this computes a perturbation for every
batch and adds the clean loss.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.context import (
    AttackContext,
    AttackDataConfig,
    State,
    checkpointed_loop,
    load_model_state,
    model_state,
)
from wootz.data import epoch_batches
from wootz.rng import derive


@dataclass(frozen=True, slots=True, kw_only=True)
class Implicit(AttackDataConfig):
    """How the minimax problem is solved.

    Attributes:
        epochs: the number of passes over the data.
        batch_size: the number of images that share a perturbation.
        radius: the largest L2 norm of a perturbation, in pixels of [0, 1].
        steps: the number of ascent steps to find it, each of length 2 * radius / steps.
        ascent: the step size of the ascent step whose fixed point the perturbation is assumed to be.
        decay: the regularization that keeps the fixed-point iteration from diverging: minus decay / 2 times the squared
            norm.
        terms: the number of fixed-point iterations; 0 omits the implicit term.
        lr: the learning rate of Adam on the weights.
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
    """Return a copy of `model` that was trained against universal perturbations."""
    device = context.execution.accelerator
    net = copy.deepcopy(model).to(device).eval()
    parameters = [parameter.requires_grad_(True) for parameter in net.parameters()]

    def epoch(number: int, state: State) -> State:
        load_model_state(net, state)
        adam = torch.optim.Adam(parameters, lr=cfg.lr)  # a new one per epoch, so that the state is the weights alone
        for rows in epoch_batches(len(context.data), cfg.batch_size, seed=derive(context.seed, "rows"), epoch=number):
            x, y = context.data.subset(rows).images().to(device), context.data.labels[rows].to(device)
            for parameter, gradient in zip(parameters, hypergradient(cfg, net, parameters, x, y), strict=True):
                parameter.grad = gradient
            adam.step()
        return model_state(net)

    load_model_state(net, checkpointed_loop(context, "unlearning", cfg.epochs, lambda: model_state(net), epoch))
    net.zero_grad()
    return net.cpu()


def universal_perturbation(cfg: Implicit, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return a perturbation [1, C, H, W] within `cfg.radius` that raises the mean loss of `x` with labels `y`."""
    delta = torch.zeros_like(x[:1])
    for _ in range(cfg.steps):
        delta.requires_grad_(True)
        (gradient,) = torch.autograd.grad(_loss(net, x, y, delta), delta)
        delta = delta.detach() + 2 * cfg.radius / cfg.steps * gradient / gradient.norm().clamp_min(1e-12)
        delta = delta * (cfg.radius / delta.norm().clamp_min(1e-12)).clamp_max(1)
    return delta


def hypergradient(
    cfg: Implicit, net: nn.Module, parameters: Sequence[Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, ...]:
    """Return the total gradient of the loss at the worst perturbation with respect to the parameters.

    It includes the dependence of the perturbation on the parameters.

    Args:
        cfg: the settings.
        net: the network, images in [0, 1] -> logits.
        parameters: the parameters of `net` to differentiate by.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
    """
    delta = universal_perturbation(cfg, net, x, y).requires_grad_(True)
    perturbed_loss = _loss(net, x, y, delta)
    regularized = perturbed_loss - cfg.decay / 2 * delta.square().sum()
    (delta_gradient,) = torch.autograd.grad(regularized, delta, create_graph=True)
    next_delta = delta + cfg.ascent * delta_gradient
    outer_loss = perturbed_loss + F.cross_entropy(net(x), y)
    direct_delta, *direct = torch.autograd.grad(outer_loss, [delta, *parameters], retain_graph=True)
    vector = direct_delta
    for _ in range(cfg.terms):
        vector = torch.autograd.grad(next_delta, delta, vector, retain_graph=True)[0] + direct_delta
    if not cfg.terms:
        return tuple(direct)
    implicit = torch.autograd.grad(next_delta, parameters, vector, allow_unused=True)
    return tuple(first if second is None else first + second for first, second in zip(direct, implicit, strict=True))


def _loss(net: nn.Module, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
    return F.cross_entropy(net((x + delta).clamp(0, 1)), y)
