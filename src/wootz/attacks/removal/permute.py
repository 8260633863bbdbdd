"""Hidden channels in another order: the same function from weights laid out differently.

A mark that is read from the weights (Uchida et al., arXiv 1701.04082, and after) is looked for where it no longer
is; one that is read from answers does not notice.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from wootz.attacks.adversary import AttackContext
from wootz.attacks.removal.channels import graph, parts
from wootz.attacks.removal.finetune import last_layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Permute:
    """Nothing to set: every hidden channel gets a random place."""


def permute(cfg: Permute, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` that answers as before, with its channels and hidden units shuffled."""
    shuffled, generator = copy.deepcopy(model).eval(), context.generator("permute")
    outputs = shuffled.get_submodule(last_layer(shuffled))
    groups = graph(shuffled, context.data.subset(slice(1)).images()).get_all_groups(ignored_layers=[outputs])
    for group in groups:
        order = torch.randperm(len(group[0].idxs), generator=generator)
        for tensor, dim, places in parts(group):
            moved = places.view(len(order), -1)[order].flatten()  # a channel may own several places, as after Flatten
            tensor.index_copy_(dim, places, tensor.index_select(dim, moved))
    return shuffled
