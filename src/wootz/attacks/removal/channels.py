"""Channels that belong together, found by torch-pruning's dependency graph (Fang et al., arXiv 2301.12900).

A channel is more than a filter: its norm, what reads it, and what is added to it go with it. The library cuts
all of that out. We set it to zero instead: the same function as the smaller network's, in a model that its spec
still builds. Zeros stay zeros when the model trains on: nothing flows through such a channel, either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch_pruning as tp
from torch import Tensor, nn

_READS = (tp.prune_conv_in_channels, tp.prune_linear_in_channels)


class Part(NamedTuple):
    """The places of a group's channels in one tensor of the model, along one dimension, in the channels' order."""

    tensor: Tensor
    dim: int
    places: Tensor


def graph(model: nn.Module, x: Tensor) -> tp.DependencyGraph:
    """Return the graph of dependencies between the layers that `x` passes."""
    return tp.DependencyGraph().build_dependency(model, example_inputs=x)


def parts(group: tp.Group) -> Iterator[Part]:
    """Yield all of the model's tensors (parameters and norms' statistics) that a group of channels lives in."""
    for item in group.items:
        layer, reads = item.dep.layer, item.dep.handler in _READS
        places = torch.tensor(item.idxs)[torch.tensor(item.root_idxs).argsort(stable=True)]
        if reads:
            yield Part(layer.weight.data, 1, places)
        else:
            kept = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
            yield from (Part(tensor.data, 0, places) for tensor in kept if tensor.dim())


def silence(group: tp.Group) -> None:
    """Set the group's channels to zero wherever they live, in place."""
    for tensor, dim, places in parts(group):
        tensor.index_fill_(dim, places, 0)
