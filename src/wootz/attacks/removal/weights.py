"""Changes of the weights: quantization, noise, and shifting before fine-tuning. Biases and normalizations stay."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from wootz import checks
from wootz.attacks.context import AttackContext
from wootz.attacks.removal.finetune import FinetuneConfig, finetune


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize:
    """Symmetric quantization with one scale per output channel.

    Attributes:
        bits: the number of bits per weight, from 2 to 16.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        checks.within(2, 16, bits=self.bits)


def quantize(cfg: Quantize, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` whose weights take at most 2^bits - 1 values per channel; it still computes in float."""
    quantized, largest = copy.deepcopy(model), 2 ** (cfg.bits - 1) - 1
    with torch.no_grad():
        for weight in (p for p in quantized.parameters() if p.dim() > 1):
            scale = weight.flatten(1).abs().amax(1).clamp_min(1e-12) / largest
            scale = scale.view(-1, *[1] * (weight.dim() - 1))
            weight.copy_((weight / scale).round_().clamp_(-largest, largest) * scale)
    return quantized


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightNoise:
    """Gaussian noise on the weights.

    Attributes:
        noise: the standard deviation of the noise, in standard deviations of each weight tensor.
    """

    noise: float = 0.2

    def __post_init__(self) -> None:
        checks.not_negative(noise=self.noise)


def add_noise(cfg: WeightNoise, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` with noise added to its weights."""
    noisy, generator = copy.deepcopy(model).eval(), context.generator("noise")
    with torch.no_grad():
        for weight in (p for p in noisy.parameters() if p.dim() > 1):
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=cfg.noise * float(weight.std()))
    return noisy


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightShift(FinetuneConfig):
    """The distance that the weights move before fine-tuning.

    Lukas et al. (arXiv 2108.04974) name the attack; its form is ours. All filters of a layer move by a common step
    against their mean, and each by a random step of its own. This destroys marks that are written into exact values of
    the weights; fine-tuning restores the accuracy, and nothing makes it restore the marks.

    Attributes:
        shift: the common step, in mean filters of the layer; 1 subtracts the mean filter.
        noise: the step of each weight, in standard deviations of the layer's weights.
    """

    shift: float = 1.0
    noise: float = 0.5
    epochs: int = 5

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        checks.not_negative(shift=self.shift, noise=self.noise)


def shift_weights(cfg: WeightShift, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` with its weights moved, trained further."""
    moved, generator = copy.deepcopy(model), context.generator("shift")
    with torch.no_grad():
        for weight in (p for p in moved.parameters() if p.dim() > 1):
            step = torch.randn(weight.shape, generator=generator) * weight.std()
            weight.sub_(cfg.shift * weight.mean(0)).add_(step, alpha=cfg.noise)
    return finetune(cfg, moved, context)
