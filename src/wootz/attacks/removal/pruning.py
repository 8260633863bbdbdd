"""Pruning: of single weights by magnitude, of channels by importance, and of channels that clean images leave inactive.

Magnitude pruning (Han et al., arXiv 1506.02626), structured pruning (Li et al., arXiv 1608.08710; Fang et al., arXiv
2301.12900) and fine-pruning (Liu et al., arXiv 1805.12185).
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

import torch
import torch_pruning as tp
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.context import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal.channels import dependency_graph, zero_channels
from wootz.attacks.removal.finetune import FinetuneConfig, finetune
from wootz.models import last_layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """Unstructured pruning by magnitude.

    Attributes:
        sparsity: the fraction of the weights set to zero (biases and normalizations stay).
        scope: whether weights are ranked over the whole network (`global`) or within each layer (`layer`).
    """

    sparsity: float = 0.5
    scope: Literal["global", "layer"] = "global"

    def __post_init__(self) -> None:
        checks.within(0, 0.999, sparsity=self.sparsity)


def prune(cfg: Prune, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` with its smallest weights set to zero; neither data nor randomness is used.

    All weights that equal the threshold in magnitude are pruned, so ties can raise the sparsity.
    """
    pruned = copy.deepcopy(model)
    weights = [p for p in pruned.parameters() if p.dim() > 1]
    groups = [weights] if cfg.scope == "global" else [[weight] for weight in weights]
    with torch.no_grad():
        for group in groups:
            magnitudes = torch.cat([weight.abs().flatten() for weight in group])
            count = round(cfg.sparsity * len(magnitudes))
            threshold = magnitudes.kthvalue(count).values if count else -torch.ones(())
            for weight in group:
                weight.mul_(weight.abs() > threshold)
    return pruned


@dataclass(frozen=True, slots=True, kw_only=True)
class Structured(FinetuneConfig):
    """Pruning of whole channels, and fine-tuning after it.

    Attributes:
        ratio: the fraction of the hidden channels that is pruned.
        scope: whether channels are ranked within each group (`group`) or over the whole network (`global`).
        importance: the importance of a channel: the 2-norm of its weights, or the 1-norm, summed over its group.
    """

    ratio: float = 0.3
    scope: Literal["group", "global"] = "group"
    importance: Literal["L1", "L2"] = "L2"
    epochs: int = 0

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        checks.within(0, 0.95, ratio=self.ratio)


def prune_channels(cfg: Structured, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` whose least important channels are zero, trained further for `cfg.epochs`."""
    pruned = copy.deepcopy(model).eval()
    pruner = tp.pruner.BasePruner(
        pruned,
        context.data.subset(slice(1)).images(),
        importance=tp.importance.GroupMagnitudeImportance(p=int(cfg.importance[1])),
        global_pruning=cfg.scope == "global",
        pruning_ratio=cfg.ratio,
        ignored_layers=[pruned.get_submodule(last_layer(pruned))],
    )
    for group in pruner.step(interactive=True):
        zero_channels(group)
    return finetune(cfg, pruned, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinePrune(FinetuneConfig):
    """Fine-pruning of the last convolution.

    Attributes:
        tolerance: the largest loss of accuracy on the attacker's images, a fraction; the source's is 4 points.
    """

    tolerance: float = 0.04

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        checks.within(0, 1, tolerance=self.tolerance)


def fine_prune(cfg: FinePrune, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` without the least active channels of its last convolution, trained further."""
    images, labels = context.data.images(), context.data.labels
    order = mean_activations(model, last_convolution(model), images).argsort().tolist()

    def accuracy(pruned: nn.Module) -> float:
        return (predict_logits(pruned, images).argmax(1) == labels).float().mean().item()

    before = accuracy(model)
    # Accuracy falls almost monotonically with the number of channels, so bisection finds the last one tolerated.
    count = bisect_right(
        range(1, len(order)),
        cfg.tolerance,
        key=lambda count: before - accuracy(without_channels(model, order[:count], images)),
    )
    return finetune(cfg, without_channels(model, order[:count], images), context)


def mean_activations(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Return the mean positive part [channels] of the output of layer `name`, over images and positions."""
    sums: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda layer, inputs, out: sums.append(out.relu().mean((2, 3)).sum(0))
    )
    try:
        predict_logits(model, images)
    finally:
        handle.remove()
    return torch.stack(sums).sum(0) / len(images)


def without_channels(model: nn.Module, channels: list[int], images: Tensor) -> nn.Module:
    """Return a copy of `model` in which these channels of the last convolution, and all that depends on them, are zero.

    Args:
        model: the network.
        channels: the indices of the channels.
        images: images [N, C, H, W] to trace the network with.
    """
    pruned = copy.deepcopy(model).eval()
    if channels:
        layer = pruned.get_submodule(last_convolution(pruned))
        graph = dependency_graph(pruned, images[:1])
        zero_channels(graph.get_pruning_group(layer, tp.prune_conv_out_channels, channels))
    return pruned


def last_convolution(model: nn.Module) -> str:
    """Return the name of the last convolution."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return names[-1]
