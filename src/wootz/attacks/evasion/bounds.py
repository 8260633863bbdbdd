"""Bounds of a network's outputs over an L-inf ball: interval bound propagation (Gowal et al., arXiv 1810.12715).

An attack gives an upper bound of robust accuracy. These bounds hold at every point of the ball and give a lower bound:
an image that they certify cannot be misclassified in the ball, up to float rounding. They are loose for networks that
were not trained for them, of which they may certify no image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from wootz.errors import ModelError
from wootz.models.architectures import Normalize, PreActBlock
from wootz.modes import eval_mode


class Interval(NamedTuple):
    """Elementwise bounds: every value lies between `lower` and `upper`, two tensors of one shape [N, ...]."""

    lower: Tensor
    upper: Tensor

    @property
    def center(self) -> Tensor:
        """The center of the interval."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width of the interval."""
        return (self.upper - self.lower) / 2


ElementwiseAffine: TypeAlias = dict[nn.Module, tuple[Tensor, Tensor]]
"""The factor and the summand of each layer that is affine and elementwise (normalization, dropout)."""


def margins(model: nn.Module, x: Tensor, eps: float, *, affine: ElementwiseAffine | None = None) -> Tensor:
    """Return upper bounds [N, K, K]: element [n, k, j] bounds logit j - logit k from above in the ball around x[n].

    The last layer, if it is linear, is bounded together with the difference, which is tighter (the paper's section 3).

    Args:
        model: images in [0, 1] -> logits, in its current mode; in train mode dropout uses one mask for both bounds.
        x: images float32 [N, C, H, W] in [0, 1].
        eps: the radius of the L-inf ball, in pixels of [0, 1]; the ball is clipped to [0, 1].
        affine: factors and summands that `record_batchnorm` recorded for this batch, needed for batch normalization in
            train mode; those of other layers are added.

    Raises:
        ModelError: a layer has no bounds.
    """
    *layers, last = sequence(model)
    affine, box = {} if affine is None else affine, ball(x, eps)
    for layer in layers:
        box = propagate(layer, box, affine)
    if type(last) is not nn.Linear:
        box = propagate(last, box, affine)
        same = torch.eye(box.lower.shape[1], device=x.device)
        return (box.upper[:, None, :] - box.lower[:, :, None]) * (1 - same)
    logits: Tensor = last(box.center)
    rows = (last.weight[None] - last.weight[:, None]).abs().flatten(0, 1)
    radius: Tensor = F.linear(box.radius, rows)
    return logits[:, None, :] - logits[:, :, None] + radius.view(len(logits), *2 * (len(last.weight),))


def certified(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Return which images are certified to be classified as `y` in the whole ball, bool [N]; in eval mode."""
    with eval_mode(model), torch.no_grad():
        bounds = margins(model, x, eps)
    against = bounds[torch.arange(len(y), device=y.device), y]
    others = against.scatter(1, y[:, None], float("-inf"))
    return others.amax(1) < 0


def ball(x: Tensor, eps: float) -> Interval:
    """Return the L-inf ball around images in [0, 1], clipped to [0, 1]."""
    return Interval((x - eps).clamp(0, 1), (x + eps).clamp(0, 1))


def sequence(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a (nested) `nn.Sequential` in order; any other module is its own only layer."""
    return [layer for child in model for layer in sequence(child)] if isinstance(model, nn.Sequential) else [model]


def propagate(layer: nn.Module, box: Interval, affine: ElementwiseAffine) -> Interval:
    """Return bounds of the outputs of a layer from bounds of its inputs.

    Raises:
        ModelError: the layer has no bounds.
    """
    if type(layer) not in _RULES:  # exact types: a subclass may compute something else
        supported = ", ".join(kind.__name__ for kind in _RULES)
        raise ModelError(f"no bounds are known for the layer {type(layer).__name__}; known: {supported}")
    return _RULES[type(layer)](layer, box, affine)


@contextmanager
def record_batchnorm(model: nn.Module) -> Iterator[ElementwiseAffine]:
    """Record factor and summand of each batch normalization in train mode, for the batches passed in the context.

    With them, bounds use the statistics of the images themselves (Zhang et al., arXiv 1906.06316), not of their bounds.
    """
    affine: ElementwiseAffine = {}

    def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _BatchNorm)
        if layer.training:
            batch = inputs[0].float()
            variance, mean = torch.var_mean(batch, [axis for axis in range(batch.ndim) if axis != 1], correction=0)
            affine[layer] = _batchnorm_affine(layer, mean, variance, batch.ndim)

    hooks = [m.register_forward_pre_hook(record) for m in model.modules() if isinstance(m, _BatchNorm)]
    try:
        yield affine
    finally:
        for hook in hooks:
            hook.remove()


def _batchnorm_affine(layer: _BatchNorm, mean: Tensor, variance: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    factor = (variance + layer.eps).rsqrt() * (1.0 if layer.weight is None else layer.weight)
    summand = (0.0 if layer.bias is None else layer.bias) - mean * factor
    shape = (1, -1) + (1,) * (axes - 2)
    return factor.view(shape), summand.view(shape)


def _elementwise(layer: nn.Module, box: Interval, affine: ElementwiseAffine) -> Interval:
    """Return bounds of normalization and dropout: elementwise multiplication by a factor and addition of a summand."""
    if layer not in affine:
        affine[layer] = _elementwise_affine(layer, box.lower)
    factor, summand = affine[layer]
    center, radius = box.center * factor + summand, box.radius * factor.abs()
    return Interval(center - radius, center + radius)


def _elementwise_affine(layer: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(layer, Normalize):
        return 1 / layer.std, -layer.mean / layer.std
    if isinstance(layer, nn.Dropout):
        return F.dropout(torch.ones_like(like), layer.p, layer.training), torch.zeros_like(like[:1])
    if layer.training or layer.running_mean is None:
        raise ModelError(f"{type(layer).__name__} in train mode has bounds only with statistics from record_batchnorm")
    return _batchnorm_affine(layer, layer.running_mean, layer.running_var, like.ndim)


def _linear(layer: nn.Linear, box: Interval, affine: ElementwiseAffine) -> Interval:
    center, radius = layer(box.center), F.linear(box.radius, layer.weight.abs())
    return Interval(center - radius, center + radius)


def _convolution(layer: nn.Conv2d, box: Interval, affine: ElementwiseAffine) -> Interval:
    if layer.padding_mode != "zeros":
        raise ModelError(f"no bounds are known for Conv2d with padding_mode {layer.padding_mode!r}; known: 'zeros'")
    center = layer(box.center)
    radius = F.conv2d(box.radius, layer.weight.abs(), None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return Interval(center - radius, center + radius)


def _monotonic(layer: nn.Module, box: Interval, affine: ElementwiseAffine) -> Interval:
    """Return bounds of a layer whose outputs are nondecreasing in every input."""
    return Interval(layer(box.lower), layer(box.upper))


def _residual(block: PreActBlock, box: Interval, affine: ElementwiseAffine) -> Interval:
    active = propagate(block.norm1, box, affine)
    active = Interval(active.lower.relu(), active.upper.relu())
    skip = box if block.shortcut is None else propagate(block.shortcut, active, affine)
    inner = propagate(block.norm2, propagate(block.conv1, active, affine), affine)
    inner = propagate(block.conv2, Interval(inner.lower.relu(), inner.upper.relu()), affine)
    return Interval(inner.lower + skip.lower, inner.upper + skip.upper)


_RULES: Mapping[type[nn.Module], Callable[[Any, Interval, ElementwiseAffine], Interval]] = MappingProxyType(
    {
        Normalize: _elementwise,
        nn.BatchNorm1d: _elementwise,
        nn.BatchNorm2d: _elementwise,
        nn.Dropout: _elementwise,
        nn.Linear: _linear,
        nn.Conv2d: _convolution,
        nn.ReLU: _monotonic,
        nn.Tanh: _monotonic,
        nn.MaxPool2d: _monotonic,
        nn.AdaptiveAvgPool2d: _monotonic,
        nn.Flatten: _monotonic,
        nn.Identity: _monotonic,
        PreActBlock: _residual,
    }
)
