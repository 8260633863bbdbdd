"""Channels that depend on each other, and the attack that permutes them.

Dependencies come from torch-pruning's graph (Fang et al., arXiv 2301.12900): a channel consists of a filter, its
normalization, the weights that read it, and the channels that are added to it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch_pruning as tp
from torch import Tensor, nn

from wootz.attacks.context import AttackContext
from wootz.models import last_layer

_READERS = (tp.prune_conv_in_channels, tp.prune_linear_in_channels)


class ChannelSlice(NamedTuple):
    """The positions of a group's channels in one tensor of the model, along one dimension, in the channels' order."""

    tensor: Tensor
    dim: int
    positions: Tensor


def dependency_graph(model: nn.Module, x: Tensor) -> tp.DependencyGraph:
    """Return the graph of dependencies between the layers that images `x` pass through."""
    return tp.DependencyGraph().build_dependency(model, example_inputs=x)


def group_slices(group: tp.Group) -> Iterator[ChannelSlice]:
    """Yield the slices of all tensors (parameters and normalization statistics) that belong to a group of channels."""
    for item in group.items:
        layer = item.dep.layer
        positions = torch.tensor(item.idxs)[torch.tensor(item.root_idxs).argsort(stable=True)]
        if item.dep.handler in _READERS:
            yield ChannelSlice(layer.weight.data, 1, positions)
        else:
            tensors = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
            yield from (ChannelSlice(tensor.data, 0, positions) for tensor in tensors if tensor.dim())


def zero_channels(group: tp.Group) -> None:
    """Set all slices of the group to zero, in place.

    torch-pruning removes channels from the tensors instead. Zeros give the same function in a model that its spec still
    builds, and remain zeros in training, as no gradient reaches such a channel.
    """
    for tensor, dim, positions in group_slices(group):
        tensor.index_fill_(dim, positions, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permute:
    """A random permutation of every group of hidden channels has no settings."""


def permute(cfg: Permute, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` with the same outputs and its hidden channels and units in random order.

    A mark that is read from the weights (Uchida et al., arXiv 1701.04082, and later work) is no longer where it was
    written; a mark that is read from answers is unaffected.
    """
    shuffled, generator = copy.deepcopy(model).eval(), context.generator("permute")
    outputs = shuffled.get_submodule(last_layer(shuffled))
    graph = dependency_graph(shuffled, context.data.subset(slice(1)).images())
    for group in graph.get_all_groups(ignored_layers=[outputs]):
        order = torch.randperm(len(group[0].idxs), generator=generator)
        for tensor, dim, positions in group_slices(group):
            sources = positions.view(len(order), -1)[order].flatten()  # one channel has several inputs after Flatten
            tensor.index_copy_(dim, positions, tensor.index_select(dim, sources))
    return shuffled
