"""The inner maximization of adversarial training: worst points in the ball, and adversarial weight perturbation.

Attacks run on the raw model, in eval mode unless the recipe says otherwise. The outer pass of a loss goes through
`forward`, the wrapped module that averages gradients over processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from wootz.attacks.evasion import BALLS, PGD, run_pgd
from wootz.modes import eval_mode, without_gradients
from wootz.training.recipe import Recipe

_NOISE = 1e-3  # standard deviation; the KL divergence has zero gradient at the image itself


class Batch(NamedTuple):
    """Images [N, C, H, W], the true labels [N] that attacks maximize the loss for, and target probabilities [N, K]."""

    x: Tensor
    y: Tensor
    targets: Tensor


Forward: TypeAlias = Callable[[Tensor], Tensor]
"""Images [N, C, H, W] -> logits [N, K]."""


def inner_attack(cfg: Recipe, eps: float) -> PGD | None:
    """Return the training attack at budget `eps`; None where its step size is zero."""
    size = eps * (cfg.step_size or 2.5 / cfg.steps)
    return PGD(eps=eps, norm=cfg.norm, steps=cfg.steps, step_size=size, keep="last") if size > 0 else None


def attack_mode(cfg: Recipe, model: nn.Module) -> AbstractContextManager[nn.Module]:
    """Put the model into the recipe's attack mode inside the block, and restore it afterwards."""
    return eval_mode(model) if cfg.attack_mode == "eval" else without_gradients(model)


def worst_points(cfg: Recipe, model: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator) -> Tensor:
    """Return the last points of PGD-k on cross-entropy from a random start; the images themselves at budget zero."""
    attack = inner_attack(cfg, eps)
    if attack is None:
        return batch.x
    with attack_mode(cfg, model):
        return run_pgd(attack, model, batch.x, batch.y, start=BALLS[cfg.norm].start(batch.x, eps, generator))


def most_divergent_points(
    cfg: Recipe, model: nn.Module, batch: Batch, *, eps: float, generator: torch.Generator
) -> Tensor | None:
    """Return PGD-k's last points on the KL divergence from the images' own predictions; None at budget zero."""
    attack = inner_attack(cfg, eps)
    if attack is None:
        return None
    noise = torch.randn(batch.x.shape, generator=generator, device=batch.x.device, dtype=batch.x.dtype)
    start = BALLS[cfg.norm].project(batch.x + _NOISE * noise, batch.x, eps)
    with attack_mode(cfg, model):
        with torch.no_grad():
            clean = model(batch.x).float()
        return run_pgd(
            attack, model, batch.x, batch.y, start=start, objective=lambda logits, _: kl_divergence(clean, logits)
        )


def kl_divergence(logits: Tensor, others: Tensor) -> Tensor:
    """Return KL(p || q) in nats [N], where p and q are the softmax of `logits` and `others`, both [N, K]."""
    return F.kl_div(others.log_softmax(1), logits.log_softmax(1), reduction="none", log_target=True).sum(1)


def with_perturbed_weights(
    cfg: Recipe, model: nn.Module, forward: nn.Module, loss: Callable[[Forward], Tensor]
) -> Tensor:
    """Return `loss` at weights perturbed by `cfg.awp_gamma`; at 0, at the weights themselves.

    Adversarial weight perturbation (Wu et al., arXiv 2004.05884). The gradient is taken at the perturbed weights and
    applied to the unperturbed ones: w <- w - lr * gradient, which is eq. 12 of the paper. The weights are never
    written, so nothing needs to be restored; weight decay acts on w, where the source's acts on the perturbed weights.
    With several processes each computes its own perturbation.

    Args:
        cfg: the recipe.
        model: the raw module, in the mode of training.
        forward: the same module, wrapped as it is called in training.
        loss: network -> scalar, over points that have been computed before.
    """
    if cfg.awp_gamma == 0:
        return loss(forward)
    moves = perturbation(model, loss, cfg.awp_gamma)
    moved = {name: weight + moves[weight] for name, weight in forward.named_parameters() if weight in moves}
    return loss(lambda x: _call_with(forward, moved, x, tie_weights=False))


def perturbation(model: nn.Module, loss: Callable[[Forward], Tensor], gamma: float) -> Mapping[Tensor, Tensor]:
    """Return for each weight tensor a step along its gradient, of `gamma` times the weight's norm (eq. 8 to 10).

    One step, without biases and normalization weights (tensors of one axis), as in the source. Batch statistics are
    used but not updated.
    """
    copies = {name: weight.detach().requires_grad_() for name, weight in model.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    perturbed = {name: weight for name, weight in model.named_parameters() if weight.ndim > 1}
    value = loss(lambda x: _call_with(model, copies | buffers, x))
    gradients = torch.autograd.grad(value, [copies[name] for name in perturbed])
    return {
        weight: gradient * (gamma * weight.detach().norm() / gradient.norm().clamp_min(1e-12))
        for weight, gradient in zip(perturbed.values(), gradients, strict=True)
    }


def _call_with(net: nn.Module, tensors: Mapping[str, Tensor], x: Tensor, *, tie_weights: bool = True) -> Tensor:
    """Call a network with other tensors in place of its own.

    Fabric's wrapper reaches each layer under two names. With tied weights the replacement would be set under both and
    the original weight would not be restored, so the wrapper is called without.
    """
    logits: Tensor = functional_call(net, dict(tensors), (x,), tie_weights=tie_weights)
    return logits
