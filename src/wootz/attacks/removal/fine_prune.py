"""Fine-pruning (Liu et al., arXiv 1805.12185): features that clean images leave dormant go, then the rest trains on."""

from __future__ import annotations

import copy
from bisect import bisect_right
from dataclasses import dataclass

import torch
import torch_pruning as tp
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal.channels import graph, silence
from wootz.attacks.removal.tuning import Tuning, tune


@dataclass(frozen=True, slots=True, kw_only=True)
class FinePrune(Tuning):
    """How far to prune: until accuracy on the attacker's images has fallen by `tolerance`, the source's 4 points."""

    tolerance: float = 0.04

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)
        checks.within(0, 1, tolerance=self.tolerance)


def fine_prune(cfg: FinePrune, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` without the dormant channels of its last convolution, trained on."""
    images, labels = context.data.images(), context.data.labels
    order = activity(model, last_convolution(model), images).argsort().tolist()

    def accuracy(pruned: nn.Module) -> float:
        return (predict_logits(pruned, images).argmax(1) == labels).float().mean().item()

    before = accuracy(model)
    # Accuracy falls as more channels go, more or less; so the last count within the tolerance is found by halving.
    count = bisect_right(
        range(1, len(order)), cfg.tolerance, key=lambda count: before - accuracy(without(model, order[:count], images))
    )
    return tune(cfg, without(model, order[:count], images), context)


def activity(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Return the mean [channels] of what layer `name` puts out above zero."""
    total: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda layer, inputs, out: total.append(out.relu().mean((2, 3)).sum(0))
    )
    try:
        predict_logits(model, images)
    finally:
        handle.remove()
    return torch.stack(total).sum(0) / len(images)


def without(model: nn.Module, channels: list[int], images: Tensor) -> nn.Module:
    """Return a copy of `model` in which these channels of the last convolution are zero, wherever they live."""
    pruned = copy.deepcopy(model).eval()
    if channels:
        layer = pruned.get_submodule(last_convolution(pruned))
        silence(graph(pruned, images[:1]).get_pruning_group(layer, tp.prune_conv_out_channels, channels))
    return pruned


def last_convolution(model: nn.Module) -> str:
    """Return the name of the last convolution."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return names[-1]
