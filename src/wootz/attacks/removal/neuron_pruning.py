"""Adversarial neuron pruning (Wu, Wang, arXiv 2110.14430): what breaks first under perturbed neurons is the backdoor.

A mask over the neurons learns to keep the clean loss low, plain and with all neurons scaled against it. Neurons whose
mask falls under a threshold go. As in the source, neurons are the channels of batch norms; in a model that has none,
the outputs of convolutions and hidden linear layers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from wootz import checks
from wootz.attacks.adversary import AttackContext, AttackDataConfig, State, rounds
from wootz.attacks.removal.neurons import hidden_layers, without_neurons

_SAVED_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronPruning(AttackDataConfig):
    """How the mask is found.

    Attributes:
        eps: how far weights and biases of a neuron are scaled against the mask: by 1 - eps to 1 + eps.
        alpha: weight of the plain loss; the loss under perturbation weighs 1 - alpha.
        steps: of the mask.
        lr: of the mask's SGD, with momentum 0.9.
        batch_size: images a step.
        threshold: neurons with a smaller mask go.
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
    """Return a copy of `model` without the neurons that the mask gave up."""
    device = context.execution.accelerator
    net = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    for norm in batch_norms(net).values():
        norm.train()  # a batch's own statistics, without which small changes add up to ruin in a deep net
    layers = neurons(net)
    sizes = [len(layer.get_parameter("weight")) for layer in layers.values()]
    count = sum(sizes)

    def loss(x: Tensor, y: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
        scaled = _scaled(layers, weights.split(sizes), biases.split(sizes))
        return F.cross_entropy(functional_call(net, scaled, x), y)

    def step(number: int, state: State) -> State:
        stream = context.generator("mask", number)
        rows = torch.randint(len(context.data), (cfg.batch_size,), generator=stream)
        x, y = context.data.subset(rows).images().to(device), context.data.labels[rows].to(device)
        noise = (2 * torch.rand(2, count, generator=stream) - 1).mul_(cfg.eps).to(device).requires_grad_(True)
        mask, one = state["mask"].to(device).requires_grad_(True), torch.ones(count, device=device)
        (uphill,) = torch.autograd.grad(loss(x, y, mask.detach() + noise[0], one + noise[1]), noise)
        worst = (noise.detach() + cfg.eps * uphill.sign()).clamp_(-cfg.eps, cfg.eps)
        perturbed = loss(x, y, mask + worst[0], one + worst[1])
        total = cfg.alpha * loss(x, y, mask, one) + (1 - cfg.alpha) * perturbed
        (slope,) = torch.autograd.grad(total, mask)
        speed = 0.9 * state["speed"].to(device) + slope
        return {"mask": (mask.detach() - cfg.lr * speed).clamp_(0, 1), "speed": speed}

    found = rounds(context, "mask", cfg.steps, lambda: _untouched(count), step, every=_SAVED_EVERY)
    masks = found["mask"].cpu().split(sizes)
    return without_neurons(model, {name: mask < cfg.threshold for name, mask in zip(layers, masks, strict=True)})


def _untouched(count: int) -> State:
    return {"mask": torch.ones(count), "speed": torch.zeros(count)}


def neurons(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers by name whose outputs are the neurons."""
    return batch_norms(model) or dict(hidden_layers(model))


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the batch norms by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def _scaled(layers: dict[str, nn.Module], weights: Sequence[Tensor], biases: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the parameters of these layers with each neuron's weights and bias multiplied by its factors."""
    scaled = {}
    for (name, layer), weight, bias in zip(layers.items(), weights, biases, strict=True):
        for own, parameter in layer.named_parameters():
            factor = bias if own == "bias" else weight.view(-1, *[1] * (parameter.dim() - 1))
            scaled[f"{name}.{own}"] = parameter * factor
    return scaled
