"""What a net can answer anywhere in an L-inf ball: interval bound propagation (Gowal et al., arXiv 1810.12715).

An attack finds points at which a net is wrong and so bounds robust accuracy from above. These bounds hold at every
point of the ball and bound it from below: an image that they certify can not be misclassified there, up to the
rounding of floats. They are loose for nets that were not trained for them; such nets may have nothing certified.
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
    """A box: every value lies between `lower` and `upper`, two tensors of one shape [N, ...]."""

    lower: Tensor
    upper: Tensor

    @property
    def center(self) -> Tensor:
        """The middle of the box."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half its width."""
        return (self.upper - self.lower) / 2


Notes: TypeAlias = dict[nn.Module, tuple[Tensor, Tensor]]
"""For layers that multiply and add by element, with what they did so: (factor, summand), to be used again."""


def margins(model: nn.Module, x: Tensor, eps: float, *, notes: Notes | None = None) -> Tensor:
    """Return upper bounds [N, K, K]: element [n, k, j] is never less than logit j - logit k in the ball around x[n].

    The last layer, if it is linear, is bounded together with the difference, which is tighter (its section 3).

    Args:
        model: images in [0, 1] -> logits, in whatever mode it is; in train mode dropout draws one mask for the box.
        x: images float32 [N, C, H, W] in [0, 1].
        eps: radius of the L-inf ball, in pixels; the box is cut at 0 and 1.
        notes: of the batch's own pass (`noting`), for batch normalization in train mode.

    Raises:
        ModelError: a layer has no bounds.
    """
    *layers, last = sequence(model)
    notes, box = {} if notes is None else notes, ball(x, eps)
    for layer in layers:
        box = through(layer, box, notes)
    if type(last) is not nn.Linear:
        box = through(last, box, notes)
        same = torch.eye(box.lower.shape[1], device=x.device)
        return (box.upper[:, None, :] - box.lower[:, :, None]) * (1 - same)
    logits: Tensor = last(box.center)
    rows = (last.weight[None] - last.weight[:, None]).abs().flatten(0, 1)
    reach: Tensor = F.linear(box.radius, rows)
    return logits[:, None, :] - logits[:, :, None] + reach.view(len(logits), *2 * (len(last.weight),))


def certified(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Return which images [N] are answered `y` everywhere in the ball, as far as the bounds tell; in eval mode."""
    with eval_mode(model), torch.no_grad():
        bounds = margins(model, x, eps)
    against = bounds[torch.arange(len(y), device=y.device), y]
    others = against.scatter(1, y[:, None], float("-inf"))
    return others.amax(1) < 0


def ball(x: Tensor, eps: float) -> Interval:
    """Return the L-inf ball of images in [0, 1], cut to such images."""
    return Interval((x - eps).clamp(0, 1), (x + eps).clamp(0, 1))


def sequence(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a net that is a sequence, nested sequences unfolded; of any other, itself."""
    return [layer for child in model for layer in sequence(child)] if isinstance(model, nn.Sequential) else [model]


def through(layer: nn.Module, box: Interval, notes: Notes) -> Interval:
    """Return bounds of what a layer makes of a box."""
    if type(layer) not in _RULES:  # a subclass may do something else
        known = ", ".join(kind.__name__ for kind in _RULES)
        raise ModelError(f"no bounds are known for the layer {type(layer).__name__}; known: {known}")
    return _RULES[type(layer)](layer, box, notes)


@contextmanager
def noting(model: nn.Module) -> Iterator[Notes]:
    """Note how batch normalization in train mode changes the batch that passes meanwhile: its bounds do the same.

    So the statistics are those of the images themselves (Zhang et al., arXiv 1906.06316), not of their bounds.
    """
    notes: Notes = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _BatchNorm)
        if layer.training:
            batch = inputs[0].float()
            variance, mean = torch.var_mean(batch, [axis for axis in range(batch.ndim) if axis != 1], correction=0)
            notes[layer] = _normalization(layer, mean, variance, batch.ndim)

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, _BatchNorm)]
    try:
        yield notes
    finally:
        for hook in hooks:
            hook.remove()


def _normalization(layer: _BatchNorm, mean: Tensor, variance: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    factor = (variance + layer.eps).rsqrt() * (1.0 if layer.weight is None else layer.weight)
    summand = (0.0 if layer.bias is None else layer.bias) - mean * factor
    shape = (1, -1) + (1,) * (axes - 2)
    return factor.view(shape), summand.view(shape)


def _by_element(layer: nn.Module, box: Interval, notes: Notes) -> Interval:
    """Normalization and dropout: times a factor, plus a summand."""
    if layer not in notes:
        notes[layer] = _element(layer, box.lower)
    factor, summand = notes[layer]
    middle, reach = box.center * factor + summand, box.radius * factor.abs()
    return Interval(middle - reach, middle + reach)


def _element(layer: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(layer, Normalize):
        return 1 / layer.std, -layer.mean / layer.std
    if isinstance(layer, nn.Dropout):
        return F.dropout(torch.ones_like(like), layer.p, layer.training), torch.zeros_like(like[:1])
    if layer.training or layer.running_mean is None:
        raise ModelError(f"{type(layer).__name__} in train mode has bounds only with a batch's notes")
    return _normalization(layer, layer.running_mean, layer.running_var, like.ndim)


def _linear(layer: nn.Linear, box: Interval, notes: Notes) -> Interval:
    middle, reach = layer(box.center), F.linear(box.radius, layer.weight.abs())
    return Interval(middle - reach, middle + reach)


def _convolution(layer: nn.Conv2d, box: Interval, notes: Notes) -> Interval:
    if layer.padding_mode != "zeros":
        raise ModelError(f"no bounds are known for Conv2d with padding_mode {layer.padding_mode!r}; known: 'zeros'")
    middle = layer(box.center)
    reach = F.conv2d(box.radius, layer.weight.abs(), None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return Interval(middle - reach, middle + reach)


def _rising(layer: nn.Module, box: Interval, notes: Notes) -> Interval:
    """Layers whose outputs never fall when an input rises take a box corner by corner."""
    return Interval(layer(box.lower), layer(box.upper))


def _residual(block: PreActBlock, box: Interval, notes: Notes) -> Interval:
    active = through(block.norm1, box, notes)
    active = Interval(active.lower.relu(), active.upper.relu())
    skip = box if block.shortcut is None else through(block.shortcut, active, notes)
    inner = through(block.norm2, through(block.conv1, active, notes), notes)
    inner = through(block.conv2, Interval(inner.lower.relu(), inner.upper.relu()), notes)
    return Interval(inner.lower + skip.lower, inner.upper + skip.upper)


_RULES: Mapping[type[nn.Module], Callable[[Any, Interval, Notes], Interval]] = MappingProxyType(
    {
        Normalize: _by_element,
        nn.BatchNorm1d: _by_element,
        nn.BatchNorm2d: _by_element,
        nn.Dropout: _by_element,
        nn.Linear: _linear,
        nn.Conv2d: _convolution,
        nn.ReLU: _rising,
        nn.Tanh: _rising,
        nn.MaxPool2d: _rising,
        nn.AdaptiveAvgPool2d: _rising,
        nn.Flatten: _rising,
        nn.Identity: _rising,
        PreActBlock: _residual,
    }
)
