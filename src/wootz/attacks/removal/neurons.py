"""Neurons: the output channels of convolutions and of hidden linear layers, one by one."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wootz.attacks.removal.finetune import last_layer


def hidden_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the convolutions and linear layers by name, all but the last linear one, whose outputs are the classes."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    head = last_layer(model)
    return {name: layer for name, layer in layers.items() if name != head}


def norm_after(model: nn.Module, name: str) -> _BatchNorm | None:
    """Return the batch norm that this layer's outputs pass next, as far as the order of its siblings tells."""
    parent, _, own = name.rpartition(".")
    siblings = dict(model.get_submodule(parent).named_children())
    later = list(siblings)[list(siblings).index(own) + 1 :]
    with_weights = (siblings[other] for other in later if any(True for _ in siblings[other].parameters()))
    found = next(with_weights, None)
    same = isinstance(found, _BatchNorm) and found.num_features == len(siblings[own].get_parameter("weight"))
    return found if same else None  # type: ignore[return-value]


def without_neurons(model: nn.Module, gone: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of `model` in eval mode in which these neurons, masks [channels] by layer, give zero.

    The norm that follows gives zero in their place, too. What else adds to their channels (a residual path) stays.
    """
    pruned = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name, rows in gone.items():
            for module in (pruned.get_submodule(name), norm_after(pruned, name)):
                for parameter in module.parameters() if module is not None else ():
                    parameter[rows.to(parameter.device)] = 0
    return pruned
