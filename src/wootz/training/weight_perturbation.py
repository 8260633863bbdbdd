"""Adversarial weight perturbation (Wu et al., arXiv 2004.05884): a loss that must hold around the weights, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from wootz.training.recipe import Recipe

Net = Callable[[Tensor], Tensor]


def uphill(cfg: Recipe, model: nn.Module, forward: nn.Module, value: Callable[[Net], Tensor]) -> Tensor:
    """Return `value` of the net, at weights moved uphill by `cfg.awp_gamma`; 0 takes the net as it is.

    Its gradient is the one at the moved weights, taken for the weights themselves: with w <- w - lr * that, they
    end where eq. 12 of the paper puts them. No weight is ever written, so there is nothing to restore; weight decay
    acts on w, where the source's acts on the moved weights. With several processes each moves its own way.

    Args:
        cfg: the recipe.
        model: the raw module, in the mode of training.
        forward: the same module as it is called in training.
        value: net -> scalar, over points that are already found.
    """
    if cfg.awp_gamma == 0:
        return value(forward)
    moves = perturbation(model, value, cfg.awp_gamma)
    moved = {name: weight + moves[weight] for name, weight in forward.named_parameters() if weight in moves}
    return value(lambda x: _called(forward, moved, x, once=True))


def perturbation(model: nn.Module, value: Callable[[Net], Tensor], gamma: float) -> Mapping[Tensor, Tensor]:
    """Return for each weight the move along its gradient that is `gamma` times as long as the weight (eq. 8 to 10).

    One step, and no move of biases and of normalization (one axis), as in the source. Batch statistics are read,
    not updated.
    """
    copies = {name: weight.detach().requires_grad_() for name, weight in model.named_parameters()}
    still = {name: buffer.clone() for name, buffer in model.named_buffers()}
    wide = {name: weight for name, weight in model.named_parameters() if weight.ndim > 1}
    height = value(lambda x: _called(model, copies | still, x))
    slopes = torch.autograd.grad(height, [copies[name] for name in wide])
    return {
        weight: slope * (gamma * weight.detach().norm() / slope.norm().clamp_min(1e-12))
        for weight, slope in zip(wide.values(), slopes, strict=True)
    }


def _called(net: nn.Module, tensors: Mapping[str, Tensor], x: Tensor, *, once: bool = False) -> Tensor:
    """Call a net with other tensors; `once`, each goes where its name says and nowhere else.

    A wrapper of Fabric reaches one layer by two names; put there by both, the weight itself would not come back.
    """
    logits: Tensor = functional_call(net, dict(tensors), (x,), tie_weights=not once)
    return logits
