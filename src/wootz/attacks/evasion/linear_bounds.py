"""Linear bounds of logit differences, propagated backward from the logits to the image: CROWN-IBP.

CROWN (Zhang et al., arXiv 1811.00866) bounds rectifiers by linear functions; in CROWN-IBP (arXiv 1906.06316) the bounds
of the hidden layers come from `bounds.propagate`, so that one backward pass suffices. Linear bounds are tighter than
intervals for networks that were not trained for intervals, and more expensive by a factor of the number of logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.attacks.evasion.bounds import ElementwiseAffine, Interval, ball, propagate, sequence
from wootz.errors import ModelError
from wootz.models.architectures import Normalize

BackwardRule = Callable[[Any, Tensor, Interval, ElementwiseAffine], tuple[Tensor, Tensor | float]]
"""(layer, coefficients [N, S, *out], bounds of its inputs, affine) -> coefficients [N, S, *in] and constants [N, S].

Turns S upper bounds that are linear in the outputs of a layer into upper bounds that are linear in its inputs."""


def linear_margins(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *, affine: ElementwiseAffine | None = None
) -> Tensor:
    """Return upper bounds [N, K] of logit j - logit y in the ball.

    Args:
        model: images in [0, 1] -> logits, as for `bounds.margins`.
        x: images float32 [N, C, H, W] in [0, 1].
        y: labels int64 [N].
        eps: the radius of the L-inf ball, in pixels of [0, 1].
        affine: as for `bounds.margins`.

    Raises:
        ModelError: a layer has no linear bounds.
    """
    affine, box, trace = {} if affine is None else affine, ball(x, eps), []
    for layer in sequence(model):
        trace.append((layer, box))
        box = propagate(layer, box, affine)
    unit = torch.eye(box.lower.shape[1], device=x.device)
    coefficients = unit[None] - unit[y][:, None]
    bound = torch.zeros(coefficients.shape[:2], device=x.device)
    for layer, inputs in reversed(trace):
        coefficients, constant = _propagate_backward(layer, coefficients, inputs, affine)
        bound = bound + constant
    image, coefficients = trace[0][1], coefficients.flatten(2)
    for values, factors in ((image.center, coefficients), (image.radius, coefficients.abs())):
        bound = bound + (factors @ values.flatten(1)[:, :, None]).squeeze(2)
    return bound


def _propagate_backward(
    layer: nn.Module, coefficients: Tensor, inputs: Interval, affine: ElementwiseAffine
) -> tuple[Tensor, Tensor | float]:
    if type(layer) not in _RULES:
        supported = ", ".join(kind.__name__ for kind in _RULES)
        raise ModelError(f"no linear bounds are known for the layer {type(layer).__name__}; known: {supported}")
    return _RULES[type(layer)](layer, coefficients, inputs, affine)


def _elementwise(
    layer: nn.Module, coefficients: Tensor, inputs: Interval, affine: ElementwiseAffine
) -> tuple[Tensor, Tensor | float]:
    factor, summand = affine[layer]
    return coefficients * factor[:, None], (coefficients * summand[:, None]).flatten(2).sum(2)


def _linear(
    layer: nn.Linear, coefficients: Tensor, inputs: Interval, affine: ElementwiseAffine
) -> tuple[Tensor, Tensor | float]:
    return coefficients @ layer.weight, 0.0 if layer.bias is None else coefficients @ layer.bias


def _convolution(
    layer: nn.Conv2d, coefficients: Tensor, inputs: Interval, affine: ElementwiseAffine
) -> tuple[Tensor, Tensor | float]:
    constant = 0.0 if layer.bias is None else coefficients.sum((3, 4)) @ layer.bias
    if isinstance(layer.padding, str):
        raise ModelError(f"no linear bounds are known for Conv2d with padding {layer.padding!r}; known: numbers")
    unread = [  # the number of rows and columns at the end that no window covers
        (size + 2 * pad - dilation * (kernel - 1) - 1) % stride
        for size, pad, dilation, kernel, stride in zip(
            inputs.lower.shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
    ]
    new_coefficients = F.conv_transpose2d(
        coefficients.flatten(0, 1),
        layer.weight,
        None,
        layer.stride,
        layer.padding,
        unread,
        layer.groups,
        layer.dilation,
    )
    return new_coefficients.unflatten(0, coefficients.shape[:2]), constant


def _rectifier(
    layer: nn.ReLU, coefficients: Tensor, inputs: Interval, affine: ElementwiseAffine
) -> tuple[Tensor, Tensor | float]:
    """Bound a rectifier from above by the line through the interval's ends, from below by the tighter of 0 and x."""
    lower = inputs.lower.clamp_max(0)
    upper = torch.maximum(inputs.upper.clamp_min(0), lower + 1e-8)
    upper_slope = upper / (upper - lower)
    lower_slope = (inputs.upper > -inputs.lower).to(upper_slope.dtype)
    positive, negative = coefficients.clamp_min(0), coefficients.clamp_max(0)
    constant = (positive * (-lower * upper_slope)[:, None]).flatten(2).sum(2)
    return positive * upper_slope[:, None] + negative * lower_slope[:, None], constant


def _max_pool(
    layer: nn.MaxPool2d, coefficients: Tensor, inputs: Interval, affine: ElementwiseAffine
) -> tuple[Tensor, Tensor | float]:
    """Bound a maximum from above by the largest upper bound, from below by the input with the largest lower bound."""
    _, positions = F.max_pool2d(
        inputs.lower,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.ceil_mode,
        return_indices=True,
    )
    positive, negative = coefficients.clamp_min(0), coefficients.clamp_max(0)
    constant = (positive * layer(inputs.upper)[:, None]).flatten(2).sum(2)
    new_coefficients = coefficients.new_zeros(*coefficients.shape[:3], inputs.lower[0, 0].numel())
    new_coefficients = new_coefficients.scatter_add(
        3, positions.flatten(2)[:, None].expand_as(negative.flatten(3)), negative.flatten(3)
    )
    return new_coefficients.unflatten(3, inputs.lower.shape[2:]), constant


def _reshape(
    layer: nn.Module, coefficients: Tensor, inputs: Interval, affine: ElementwiseAffine
) -> tuple[Tensor, Tensor | float]:
    return coefficients.reshape(*coefficients.shape[:2], *inputs.lower.shape[1:]), 0.0


_RULES: Mapping[type[nn.Module], BackwardRule] = MappingProxyType(
    {
        Normalize: _elementwise,
        nn.BatchNorm1d: _elementwise,
        nn.BatchNorm2d: _elementwise,
        nn.Dropout: _elementwise,
        nn.Linear: _linear,
        nn.Conv2d: _convolution,
        nn.ReLU: _rectifier,
        nn.MaxPool2d: _max_pool,
        nn.Flatten: _reshape,
        nn.Identity: _reshape,
    }
)
