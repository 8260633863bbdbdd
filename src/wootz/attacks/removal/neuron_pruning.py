"""Backdoor defenses that prune single neurons: adversarial neuron pruning and channel Lipschitzness pruning.

ANP (Wu, Wang, arXiv 2110.14430) prunes the neurons under whose perturbation the loss rises most. CLP (Zheng et al.,
arXiv 2208.03111) prunes channels with a large Lipschitz constant and needs no data: a trigger moves some channels far
more than any change of an ordinary image does. Neurons are the output channels of convolutions and hidden linear
layers, or the channels of their batch normalizations.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from wootz import checks
from wootz.attacks.context import AttackContext, AttackDataConfig, State, checkpointed_loop
from wootz.models import last_layer

_SAVED_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronPruning(AttackDataConfig):
    """How the mask over the neurons is optimized.

    Attributes:
        eps: the perturbation budget: weights and biases of a neuron are scaled by factors from 1 - eps to 1 + eps.
        alpha: the weight of the clean loss; the loss under perturbation has weight 1 - alpha.
        steps: the number of steps of the mask.
        lr: the learning rate of the mask's SGD, with momentum 0.9.
        batch_size: the number of images per step.
        threshold: neurons with a smaller mask value are pruned.
    """

    eps: float = 0.4
    alpha: float = 0.2
    steps: int = 2000
    lr: float = 0.2
    batch_size: int = 128
    threshold: float = 0.2

    def __post_init__(self) -> None:
        AttackDataConfig.__post_init__(self)
        checks.within(0, 1, eps=self.eps, alpha=self.alpha, threshold=self.threshold)
        checks.at_least(1, steps=self.steps, batch_size=self.batch_size)
        checks.positive(lr=self.lr)


def anp(cfg: NeuronPruning, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` without the neurons whose mask fell below the threshold."""
    device = context.execution.accelerator
    net = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    for norm in batch_norms(net).values():
        norm.train()  # batch statistics: with running statistics, small changes accumulate in a deep network
    layers = neuron_layers(net)
    sizes = [len(layer.get_parameter("weight")) for layer in layers.values()]
    count = sum(sizes)

    def loss(x: Tensor, y: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
        scaled = _scale_neurons(layers, weights.split(sizes), biases.split(sizes))
        return F.cross_entropy(functional_call(net, scaled, x), y)

    def step(number: int, state: State) -> State:
        stream = context.generator("mask", number)
        rows = torch.randint(len(context.data), (cfg.batch_size,), generator=stream)
        x, y = context.data.subset(rows).images().to(device), context.data.labels[rows].to(device)
        noise = (2 * torch.rand(2, count, generator=stream) - 1).mul_(cfg.eps).to(device).requires_grad_(True)
        mask, ones = state["mask"].to(device).requires_grad_(True), torch.ones(count, device=device)
        (noise_gradient,) = torch.autograd.grad(loss(x, y, mask.detach() + noise[0], ones + noise[1]), noise)
        worst = (noise.detach() + cfg.eps * noise_gradient.sign()).clamp_(-cfg.eps, cfg.eps)
        perturbed = loss(x, y, mask + worst[0], ones + worst[1])
        total = cfg.alpha * loss(x, y, mask, ones) + (1 - cfg.alpha) * perturbed
        (mask_gradient,) = torch.autograd.grad(total, mask)
        velocity = 0.9 * state["speed"].to(device) + mask_gradient
        return {"mask": (mask.detach() - cfg.lr * velocity).clamp_(0, 1), "speed": velocity}

    def start() -> State:
        return {"mask": torch.ones(count), "speed": torch.zeros(count)}

    state = checkpointed_loop(context, "mask", cfg.steps, start, step, every=_SAVED_EVERY)
    masks = state["mask"].cpu().split(sizes)
    return without_neurons(model, {name: mask < cfg.threshold for name, mask in zip(layers, masks, strict=True)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLipschitz:
    """Channels are pruned whose constant lies more than `u` standard deviations above the mean of their layer.

    Attributes:
        u: the threshold; the source's is 3. No channel of n can lie more than (n - 1) / sqrt(n) above the mean: layers
            of ten channels or fewer need a smaller one.
    """

    u: float = 3.0

    def __post_init__(self) -> None:
        checks.positive(u=self.u)


def clp(cfg: ChannelLipschitz, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` without such channels of its convolutions; neither data nor randomness is used."""
    pruned = {}
    for name, layer in hidden_layers(model).items():
        if isinstance(layer, nn.Conv2d):
            constants = lipschitz_constants(model, name)
            pruned[name] = constants > constants.mean() + cfg.u * constants.std(correction=0)
    return without_neurons(model, pruned)


def lipschitz_constants(model: nn.Module, name: str) -> Tensor:
    """Return the constant [channels] of a convolution: its kernels' spectral norms, times the scale of its batch norm.

    As in the source, the matrix [inputs, kernel positions] of each output channel stands in for the convolution.
    """
    constants: Tensor = torch.linalg.matrix_norm(model.get_parameter(f"{name}.weight").detach().flatten(2), ord=2)
    norm = norm_after(model, name)
    if norm is not None and norm.running_var is not None:
        constants = constants * (norm.weight.detach() / (norm.running_var + norm.eps).sqrt()).abs()
    return constants


def hidden_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the convolutions and linear layers by name, except the last linear one, whose outputs are the classes."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    head = last_layer(model)
    return {name: layer for name, layer in layers.items() if name != head}


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the batch normalizations by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def neuron_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers whose outputs are the neurons: the batch normalizations, as in ANP, or `hidden_layers`."""
    return batch_norms(model) or dict(hidden_layers(model))


def norm_after(model: nn.Module, name: str) -> _BatchNorm | None:
    """Return the batch normalization that follows layer `name` among its siblings, if it has as many channels."""
    parent, _, own = name.rpartition(".")
    siblings = dict(model.get_submodule(parent).named_children())
    later = list(siblings)[list(siblings).index(own) + 1 :]
    with_weights = (siblings[other] for other in later if any(True for _ in siblings[other].parameters()))
    following = next(with_weights, None)
    if isinstance(following, _BatchNorm) and following.num_features == len(siblings[own].get_parameter("weight")):
        return following
    return None


def without_neurons(model: nn.Module, pruned: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of `model` in eval mode in which these neurons output zero.

    The weights of the batch normalization that follows are set to zero as well. Values that a residual connection adds
    to their channels stay.

    Args:
        model: the network.
        pruned: layer name -> mask bool [channels] of its neurons.
    """
    zeroed = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name, rows in pruned.items():
            for module in (zeroed.get_submodule(name), norm_after(zeroed, name)):
                for parameter in module.parameters() if module is not None else ():
                    parameter[rows.to(parameter.device)] = 0
    return zeroed


def _scale_neurons(
    layers: dict[str, nn.Module], weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Return the parameters of these layers with each neuron's weights and bias multiplied by its factors."""
    scaled = {}
    for (name, layer), weight, bias in zip(layers.items(), weights, biases, strict=True):
        for own, parameter in layer.named_parameters():
            factor = bias if own == "bias" else weight.view(-1, *[1] * (parameter.dim() - 1))
            scaled[f"{name}.{own}"] = parameter * factor
    return scaled
