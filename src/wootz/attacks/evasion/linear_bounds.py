"""Margins by linear bounds, carried back from the logits to the image: CROWN over interval bounds.

Zhang et al., arXiv 1811.00866 (how a rectifier is bounded by lines), and CROWN-IBP, arXiv 1906.06316 (the boxes within
the net are `bounds.through`'s, so that one pass back is enough). Tighter than intervals for a net not trained for them,
and as many times dearer as there are logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.attacks.evasion.bounds import Interval, Notes, ball, sequence, through
from wootz.errors import ModelError
from wootz.models.architectures import Normalize

Back = Callable[[Any, Tensor, Interval, Notes], tuple[Tensor, Tensor | float]]
"""(layer, slopes [N, S, *out], the box before it, notes) -> slopes [N, S, *in] and what is added [N, S]: S upper bounds
that were linear in what leaves the layer, made linear in what enters it."""


def linear_margins(model: nn.Module, x: Tensor, y: Tensor, eps: float, *, notes: Notes | None = None) -> Tensor:
    """Return upper bounds [N, K] of logit j - logit y in the ball; arguments as for `bounds.margins`.

    Raises:
        ModelError: a layer has no linear bounds.
    """
    notes, box, trace = {} if notes is None else notes, ball(x, eps), []
    for layer in sequence(model):
        trace.append((layer, box))
        box = through(layer, box, notes)
    unit = torch.eye(box.lower.shape[1], device=x.device)
    slopes = unit[None] - unit[y][:, None]
    bound = torch.zeros(slopes.shape[:2], device=x.device)
    for layer, before in reversed(trace):
        slopes, added = _back(layer, slopes, before, notes)
        bound = bound + added
    image, slopes = trace[0][1], slopes.flatten(2)
    for part, factors in ((image.center, slopes), (image.radius, slopes.abs())):
        bound = bound + (factors @ part.flatten(1)[:, :, None]).squeeze(2)
    return bound


def _back(layer: nn.Module, slopes: Tensor, before: Interval, notes: Notes) -> tuple[Tensor, Tensor | float]:
    if type(layer) not in _RULES:
        known = ", ".join(kind.__name__ for kind in _RULES)
        raise ModelError(f"no linear bounds are known for the layer {type(layer).__name__}; known: {known}")
    return _RULES[type(layer)](layer, slopes, before, notes)


def _by_element(layer: nn.Module, slopes: Tensor, before: Interval, notes: Notes) -> tuple[Tensor, Tensor | float]:
    factor, summand = notes[layer]
    return slopes * factor[:, None], (slopes * summand[:, None]).flatten(2).sum(2)


def _linear(layer: nn.Linear, slopes: Tensor, before: Interval, notes: Notes) -> tuple[Tensor, Tensor | float]:
    return slopes @ layer.weight, 0.0 if layer.bias is None else slopes @ layer.bias


def _convolution(layer: nn.Conv2d, slopes: Tensor, before: Interval, notes: Notes) -> tuple[Tensor, Tensor | float]:
    added = 0.0 if layer.bias is None else slopes.sum((3, 4)) @ layer.bias
    if isinstance(layer.padding, str):
        raise ModelError(f"no linear bounds are known for Conv2d with padding {layer.padding!r}; known: numbers")
    missing = [  # rows and columns at the end that no window reached
        (size + 2 * pad - reach * (kernel - 1) - 1) % stride
        for size, pad, reach, kernel, stride in zip(
            before.lower.shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
    ]
    carried = F.conv_transpose2d(
        slopes.flatten(0, 1), layer.weight, None, layer.stride, layer.padding, missing, layer.groups, layer.dilation
    )
    return carried.unflatten(0, slopes.shape[:2]), added


def _rectifier(layer: nn.ReLU, slopes: Tensor, before: Interval, notes: Notes) -> tuple[Tensor, Tensor | float]:
    """Above by the line through both ends of the kink, below by 0 or by x, whichever leaves the smaller gap."""
    lower = before.lower.clamp_max(0)
    upper = torch.maximum(before.upper.clamp_min(0), lower + 1e-8)
    steep = upper / (upper - lower)
    flat = (before.upper > -before.lower).to(steep.dtype)
    rising, falling = slopes.clamp_min(0), slopes.clamp_max(0)
    added = (rising * (-lower * steep)[:, None]).flatten(2).sum(2)
    return rising * steep[:, None] + falling * flat[:, None], added


def _max_pool(layer: nn.MaxPool2d, slopes: Tensor, before: Interval, notes: Notes) -> tuple[Tensor, Tensor | float]:
    """Above by the highest upper end, below by the input whose lower end is highest."""
    _, places = F.max_pool2d(
        before.lower,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.ceil_mode,
        return_indices=True,
    )
    rising, falling = slopes.clamp_min(0), slopes.clamp_max(0)
    added = (rising * layer(before.upper)[:, None]).flatten(2).sum(2)
    carried = slopes.new_zeros(*slopes.shape[:3], before.lower[0, 0].numel())
    carried = carried.scatter_add(3, places.flatten(2)[:, None].expand_as(falling.flatten(3)), falling.flatten(3))
    return carried.unflatten(3, before.lower.shape[2:]), added


def _same(layer: nn.Module, slopes: Tensor, before: Interval, notes: Notes) -> tuple[Tensor, Tensor | float]:
    return slopes.reshape(*slopes.shape[:2], *before.lower.shape[1:]), 0.0


_RULES: Mapping[type[nn.Module], Back] = MappingProxyType(
    {
        Normalize: _by_element,
        nn.BatchNorm1d: _by_element,
        nn.BatchNorm2d: _by_element,
        nn.Dropout: _by_element,
        nn.Linear: _linear,
        nn.Conv2d: _convolution,
        nn.ReLU: _rectifier,
        nn.MaxPool2d: _max_pool,
        nn.Flatten: _same,
        nn.Identity: _same,
    }
)
